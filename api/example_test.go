package api_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/api"
	"github.com/dustinlacewell/loom/store/memory"
)

func Example() {
	dir, err := os.MkdirTemp("", "loom")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	// What a daemon does:
	ctx, stop := context.WithCancel(context.Background())
	listener, err := api.Listen(ctx, dir)
	if err != nil {
		log.Fatal(err)
	}
	server := &api.Server{Store: &memory.Store{}}
	ended := make(chan error)
	go func() { ended <- server.Serve(ctx, listener) }()

	// What a command does, with the daemon's store as if it were its own:
	client := &api.Client{Socket: filepath.Join(dir, api.SocketFile)}
	defer client.Close()
	if err := client.Adopt(ctx, map[string]string{"backup": "@daily"}); err != nil {
		log.Fatal(err)
	}
	jobs, err := client.Jobs(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(jobs[0].Name)
	_, err = client.Run(ctx, "nothing")
	fmt.Println(err)

	stop()
	if err := <-ended; err != nil {
		log.Fatal(err)
	}
	// Output:
	// backup
	// run nothing: not found: it never was, or is not kept any more
}

var _ loom.Store = (*api.Client)(nil)
