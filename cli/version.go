package cli

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

func (p *Program) versionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "version",
		Long:    `Version is of this very program. "context show" tells that of the daemon.`,
		Example: `  ` + p.Name + ` version -o json`,
		Short:   "Print the version, of the time zone data too",
		Args:    cobra.NoArgs,
	}
	output := outputFlag(cmd, "text", "json")
	cmd.RunE = func(*cobra.Command, []string) error {
		v := readVersion()
		if *output == "json" {
			return writeJSON(p.Stdout, v)
		}
		revision := ""
		if v.Revision != "" {
			revision = " (" + v.Revision + ")"
		}
		fmt.Fprintf(p.Stdout, "%s %s%s\n%s %s\ntime zones: %s\n", p.Name, v.Version, revision, v.Go, v.Platform, v.Zones)
		return nil
	}
	return cmd
}

type versionInfo struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
	Zones    string `json:"time_zones"`
}

// Version is the version of the program, as its build recorded it.
func Version() string { return readVersion().Version }

func readVersion() versionInfo {
	v := versionInfo{Version: "devel", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH, Zones: zoneData()}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	if own := strings.Trim(info.Main.Version, "()"); own != "" {
		v.Version = own
	}
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			v.Revision = s.Value[:min(len(s.Value), 12)] + v.Revision
		case s.Key == "vcs.modified" && s.Value == "true":
			v.Revision += " and changes"
		}
	}
	return v
}

// zoneData says which release of the time zone data is in use: the system's,
// or that which Go builds in.
func zoneData() string {
	for _, dir := range []string{os.Getenv("ZONEINFO"), "/usr/share/zoneinfo", "/usr/share/lib/zoneinfo", "/usr/lib/locale/TZ", "/etc/zoneinfo"} {
		if dir == "" {
			continue
		}
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			continue
		}
		f, err := os.Open(dir + "/tzdata.zi")
		if err != nil {
			return "the system's, " + dir
		}
		line, _ := bufio.NewReader(f).ReadString('\n') // a file without a line has no version
		_ = f.Close()
		if release, ok := strings.CutPrefix(strings.TrimSpace(line), "# version "); ok {
			return release + ", " + dir
		}
		return "the system's, " + dir
	}
	return "built in, of " + runtime.Version()
}
