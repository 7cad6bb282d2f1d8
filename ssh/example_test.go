package ssh_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/dustinlacewell/loom"
	loomssh "github.com/dustinlacewell/loom/ssh"
)

func ExampleDialer() {
	d := &loomssh.Dialer{SSHConfig: loom.SSHConfig{
		ConfigFile:     os.DevNull, // leave it out to use ~/.ssh/config
		ConnectTimeout: 5 * time.Second,
	}}
	conn, err := d.Dial(context.Background(), &loom.Node{Name: "web1", Address: "127.0.0.1", Port: 1, User: "deploy"})
	if e := (*loomssh.Error)(nil); errors.As(err, &e) {
		fmt.Println(e.Class)
		fmt.Println(errors.Is(err, loom.ErrUnreachable))
		return
	}
	defer func() { _ = conn.Close() }()

	err = conn.Exec(context.Background(), loom.Command{Text: "uptime", Stdout: os.Stdout})
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// connection refused
	// true
}
