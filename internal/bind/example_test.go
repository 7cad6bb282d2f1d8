package bind_test

import (
	"fmt"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/dustinlacewell/loom/internal/bind"
)

func ExampleBind() {
	type deploy struct {
		Version string        `loom:"required" help:"what to deploy"`
		Channel string        `help:"where from"`
		Wait    time.Duration `help:"how long it may take to come up"`
	}
	var job struct{ Task, Args, Kwargs yaml.Node }
	if err := yaml.Unmarshal([]byte("task: deploy\nargs: [1.10]\nkwargs: {chanel: beta, wait: 5}\n"), &job); err != nil {
		fmt.Println(err)
		return
	}
	d := deploy{Channel: "stable"}
	for _, p := range bind.Bind(&d, &job.Args, &job.Kwargs, &job.Task) {
		fmt.Printf("deploy.yaml:%d:%d: %v\n", p.Line, p.Col, p)
	}
	fmt.Println(d.Version, d.Channel)
	// Output:
	// deploy.yaml:3:10: unknown parameter "chanel" (did you mean "channel"?)
	// deploy.yaml:3:30: parameter "wait": write a duration with its unit, such as 5s, 5m or 5h, not 5
	// 1.10 stable
}
