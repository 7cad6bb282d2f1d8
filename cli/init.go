package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dustinlacewell/loom"
)

func (p *Program) initCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "init [DIRECTORY]",
		Short: "Write a first configuration, with comments",
		Long: `Init writes a configuration to start from: a main file, the nodes, of which this
machine is the only one, and two jobs. It is good as it is ("` + p.Name + ` check"), and says
what else can be written. DIRECTORY is ~/.loom, where it is found without -c, unless
you name another. What is there already is left alone, and nothing is written then.`,
		Example: `  ` + p.Name + ` init
  ` + p.Name + ` init /etc/loom`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := initDir(args)
			if err != nil {
				return err
			}
			main, err := writeNew(dir, firstFiles(p.Name))
			if err != nil {
				return err
			}
			r := *p
			r.Config = main
			m, err := r.read(cmd.Context())
			if err != nil {
				return fmt.Errorf("%s was written, but does not fit this program's tasks: %w", main, err)
			}
			with := ""
			if len(args) > 0 {
				with = " -c " + main
			}
			fmt.Fprintf(p.Stdout, "%s is written: %s on %s.\n\n", main, count(len(m.Jobs), "job"), count(len(m.Nodes), "node"))
			t := table{}
			t.add("", p.Name+" check"+with, "tell every mistake in it")
			t.add("", p.Name+" next"+with, "what will run, and when")
			t.add("", p.Name+" run disk-space --local"+with, "run a job now, from here")
			if !p.Remote {
				t.add("", p.Name+" serve"+with, "run jobs as they fall due")
			}
			t.write(p.Stdout, 0)
			return nil
		},
	}
}

// initDir returns the directory that is meant.
func initDir(args []string) (string, error) {
	if len(args) > 0 {
		return filepath.Abs(args[0])
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", &Error{Code: ExitUsage, Err: err, Hint: "name a directory"}
	}
	for _, other := range loom.DefaultFiles()[:1] { // it would be read instead
		other = filepath.Join(home, strings.TrimPrefix(other, "~/"))
		if _, err := os.Lstat(other); err == nil {
			return "", inTheWay(other)
		}
	}
	return filepath.Join(home, ".loom"), nil
}

// A newFile is one that is written by a command. The first of several is the main
// one.
type newFile struct{ name, text string }

// writeNew writes files below a directory, none of which may be there, and returns
// the first one's name.
func writeNew(dir string, files []newFile) (string, error) {
	for _, f := range files {
		if _, err := os.Lstat(filepath.Join(dir, f.name)); err == nil {
			return "", inTheWay(filepath.Join(dir, f.name))
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	for _, f := range files {
		if err := writeOne(filepath.Join(dir, f.name), f.text); err != nil {
			return "", err
		}
	}
	return filepath.Join(dir, files[0].name), nil
}

func writeOne(name, text string) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return inTheWay(name)
	}
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

func inTheWay(name string) error {
	return &Error{Code: ExitFailed, Err: fmt.Errorf("%s exists already, and nothing was written", name),
		Hint: "name another directory, or move it away"}
}

// firstFiles are a first configuration.
func firstFiles(program string) []newFile {
	program = cmp.Or(program, "loomd")
	files := []newFile{
		{"loom.yaml", `# The main file of Loom. Paths in it are relative to this directory.
nodesfile: nodes.yaml      # the machines
jobspath: jobs/            # what runs on them: every .yaml below it

max_workers: 10            # machines worked on at once, over all jobs
#timezone: Europe/Berlin   # of schedules; this machine's zone unless it says so
#grace: 30s                # for what runs when the daemon is told to stop
#state: state              # what is remembered: ~/.loom/state, or /var/lib/loom for root
#defaults:                 # any job key, for all jobs
#  timeout: 10m
#  retries: 2
#history: {keep: 90d, keep_runs: 1000}
#ssh: {host_keys: strict}  # as ssh(1): a host whose key is not known is refused
`},
		{"nodes.yaml", `# The machines. What is left out comes from your ssh configuration: whatever
# "ssh web1" does, Loom does.

here: {transport: local, groups: [mine]}   # this machine, without ssh

#web1: {groups: [web]}
#web2: {groups: [web]}
#db1:
#  ip: 192.168.1.10
#  user: postgres
#  groups: [db]
#  sudo: true
`},
		{"jobs/first.yaml", `# yaml-language-server: $schema=../loom.schema.json
# (LOOM schema >loom.schema.json makes that file, for editors)

jobs:
  disk-space:
    description: How full the disks are
    task: run                     # "LOOM tasks" lists what there is
    args: ["df -h /"]
    schedule: "*/15 * * * *"      # as crontab(5), or @daily, @every 10m
    targets: all                  # names, @groups, patterns such as db*, !exclusions

  reboot-needed:
    description: Whether an update waits for a reboot
    task: run
    args: ["if [ -e /var/run/reboot-required ]; then cat /var/run/reboot-required; exit 1; fi"]
    schedule: "0 8 * * MON-FRI"
    targets: "@mine"
    #owner: ann@example.org       # who is to be asked when it fails
    #runbook: https://wiki.example.org/reboot
    #retries: 2
    #missed: skip                 # do not make up for it later
`},
	}
	for i := range files {
		files[i].text = strings.ReplaceAll(files[i].text, "LOOM", program)
	}
	return files
}
