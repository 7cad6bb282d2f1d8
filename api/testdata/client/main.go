// Client lists the jobs of the daemon that listens at a socket, with code that a
// public generator has made from the daemon's document (client.gen.go).
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
)

func main() {
	if err := list(context.Background(), os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func list(ctx context.Context, socket string) error {
	through := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	c, err := NewClientWithResponses("http://loomd", WithHTTPClient(through))
	if err != nil {
		return err
	}
	answer, err := c.ListJobsWithResponse(ctx, &ListJobsParams{})
	if err != nil {
		return err
	}
	if answer.JSON200 == nil {
		return fmt.Errorf("%s: %s", answer.Status(), answer.Body)
	}
	for _, job := range answer.JSON200.Items {
		fmt.Println(job.Name)
	}
	missing, err := c.GetRunWithResponse(ctx, "none")
	if err != nil {
		return err
	}
	var p Problem
	if err := json.Unmarshal(missing.Body, &p); err != nil {
		return err
	}
	fmt.Println(missing.StatusCode(), *p.Type)
	return nil
}
