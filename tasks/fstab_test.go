package tasks

import (
	"bytes"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const someFstab = `# /etc/fstab: static file system information. /mnt/storage
UUID=0a3407de-014b-458b-b5c1-848e92a327a3 /               ext4    errors=remount-ro 0       1
  # an indented comment	/mnt/storage

/dev/sdb1	/mnt/storage2	ext4	defaults	0	2
/dev/sdc1 /srv/mnt/storage ext4 defaults
nonsense
sshfs#root@attic:/mnt/old	/mnt/old	fuse	defaults,allow_other,exec,reconnect,transform_symlinks	0 0
ann@attic:/with\040space /mnt/with\040space/ fuse.sshfs _netdev,password_command=a\134,b
none /proc/x swap sw 0 0
`

func TestFstab(t *testing.T) {
	tab := parseFstab([]byte(someFstab))
	if got := string(tab.bytes()); got != someFstab {
		t.Fatalf("written back it is\n%s", got)
	}
	tests := []struct {
		mountpoint string
		line       int
		source     string
		options    []string
	}{
		{"/", 1, "UUID=0a3407de-014b-458b-b5c1-848e92a327a3", []string{"errors=remount-ro"}},
		{"/mnt/storage", -1, "", nil},
		{"/mnt/storage2", 4, "/dev/sdb1", []string{"defaults"}},
		{"/mnt/storage2/", 4, "/dev/sdb1", []string{"defaults"}},
		{"/mnt/old", 7, "sshfs#root@attic:/mnt/old", []string{"defaults", "allow_other", "exec", "reconnect", "transform_symlinks"}},
		{"/mnt/with space", 8, "ann@attic:/with space", []string{"_netdev", `password_command=a\,b`}},
		{"none", -1, "", nil},
	}
	for _, tt := range tests {
		e, line := tab.find(tt.mountpoint)
		if line != tt.line || e.source != tt.source || !slices.Equal(e.options, tt.options) {
			t.Errorf("find(%q) = %+v at %d, want %q with %q at %d", tt.mountpoint, e, line, tt.source, tt.options, tt.line)
		}
	}
}

func TestFstabSet(t *testing.T) {
	entry := fstabEntry{source: "a@b:/x y", mountpoint: `/mnt/it's \new`, fstype: "fuse.sshfs", options: []string{"ro", "x=#1"}}
	const line = "a@b:/x\\040y\t/mnt/it's\\040\\134new\tfuse.sshfs\tro,x=#1\t0\t0\n"
	tests := []struct{ name, before, after string }{
		{"empty", "", line},
		{"at the end", "a /a x\n", "a /a x\n" + line},
		{"no final newline", "# a\na /a x", "# a\na /a x\n" + line},
		{"in place", "a /a x\n q  /mnt/it's\\040\\134new auto\n\nb /b x", "a /a x\n" + line + "\nb /b x"},
		{"the first of two", "q /mnt/it's\\040\\134new\nq /mnt/it's\\040\\134new/\n", line + "q /mnt/it's\\040\\134new/\n"},
		{"CR LF elsewhere", "a /a x\r\n", "a /a x\r\n" + line},
	}
	for _, tt := range tests {
		tab := parseFstab([]byte(tt.before))
		_, i := tab.find(entry.mountpoint)
		tab.set(i, entry)
		if diff := cmp.Diff(tt.after, string(tab.bytes())); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

// Whatever is in a table, it is written back to the byte, an entry that is set
// is the one that is found, and all other lines stay as they are.
func FuzzFstab(f *testing.F) {
	f.Add([]byte(someFstab), "/mnt/storage", "a@b:/c", "ro,x")
	f.Add([]byte("a /b"), "/b", "x", "")
	f.Add([]byte("\r\n\x00 /b\\"), "/b\\040", "#\\", ",")
	f.Fuzz(func(t *testing.T, text []byte, mountpoint, source, options string) {
		tab := parseFstab(text)
		if !bytes.Equal(tab.bytes(), text) {
			t.Fatalf("written back it is %q", tab.bytes())
		}
		// What the validation of the task lets through.
		if absolute("", mountpoint) != nil || oneLine("", source+options) != nil || source == "" || strings.HasPrefix(source, "#") {
			return
		}
		entry := fstabEntry{
			source: source, mountpoint: path.Clean(mountpoint), fstype: "fuse.sshfs",
			options: splitOptions(options), dump: "0", pass: "0",
		}
		before := slices.Clone(tab.lines)
		_, i := tab.find(mountpoint)
		tab.set(i, entry)
		again := parseFstab(tab.bytes())
		got, at := again.find(mountpoint)
		if want := len(before); i < 0 && at != want || i >= 0 && at != i {
			t.Fatalf("set at %d is found at %d in %q", i, at, again.bytes())
		}
		if options == "" {
			entry.options = []string{"defaults"}
		}
		if diff := cmp.Diff(entry, got, cmp.AllowUnexported(fstabEntry{})); diff != "" {
			t.Fatalf("what is found isn't what was set (-set +found):\n%s", diff)
		}
		for n, line := range before {
			if n != i && !bytes.Equal(bytes.TrimSuffix(line, []byte("\n")), bytes.TrimSuffix(again.lines[n], []byte("\n"))) {
				t.Fatalf("line %d became %q", n, again.lines[n])
			}
		}
	})
}

func TestMountinfo(t *testing.T) {
	const table = `22 27 0:21 / /proc rw,relatime - proc proc rw
36 35 98:0 /root /mnt rw,noatime shared:1 master:2 - ext3 /dev/root rw,errors=continue
99 27 0:52 / /mnt/a\040b\134 rw,nosuid,nodev,relatime shared:9 - fuse.sshfs root@attic:/mnt/storage\0432 rw,user_id=0,group_id=0,allow_other
100 27 0:53 / /mnt rw - tmpfs  rw
`
	got, err := parseMountinfo([]byte(table))
	if err != nil {
		t.Fatal(err)
	}
	want := []mountEntry{
		{"0:21", "/proc", "rw,relatime", "proc", "proc", "rw"},
		{"98:0", "/mnt", "rw,noatime", "ext3", "/dev/root", "rw,errors=continue"},
		{"0:52", `/mnt/a b\`, "rw,nosuid,nodev,relatime", "fuse.sshfs", "root@attic:/mnt/storage#2", "rw,user_id=0,group_id=0,allow_other"},
		{"0:53", "/mnt", "rw", "tmpfs", "", "rw"},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(mountEntry{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if stacked := at(got, "/mnt"); len(stacked) != 2 || stacked[1].fstype != "tmpfs" {
		t.Errorf("at /mnt are %v, want ext3 and tmpfs over it", stacked)
	}
	if _, err := parseMountinfo([]byte("x y\n")); err == nil {
		t.Error("no error for nonsense")
	}
}

// A mountpoint that the kernel escapes is read as it was.
func FuzzMountinfo(f *testing.F) {
	f.Add([]byte("36 35 98:0 / /mnt rw - ext3 /dev/root rw\n"), "/a b")
	f.Add([]byte("\\040\\9"), "/\\040\t#")
	f.Fuzz(func(t *testing.T, table []byte, mountpoint string) {
		_, _ = parseMountinfo(table) // must not panic; what comes is the kernel's
		if strings.ContainsAny(mountpoint, "\n\x00") || !strings.HasPrefix(mountpoint, "/") {
			return
		}
		line := "36 35 98:0 / " + strings.ReplaceAll(escape(mountpoint), "#", `\043`) + " rw - ext3 " + escape(mountpoint) + " rw\n"
		got, err := parseMountinfo([]byte(line))
		if err != nil || len(got) != 1 || got[0].mountpoint != mountpoint || got[0].source != mountpoint {
			t.Fatalf("%q is read as %+v, %v", line, got, err)
		}
	})
}

func TestSameSource(t *testing.T) {
	tests := []struct {
		a, b string
		same bool
	}{
		{"root@attic:/mnt/storage", "sshfs#root@attic:/mnt/storage", true},
		{"root@attic:/mnt/storage/", "root@attic:/mnt/storage", true},
		{"root@attic:/mnt/storage", "root@attic:/mnt/storage2", false},
		{"root@attic:/mnt/storage", "ann@attic:/mnt/storage", false},
		{"root@[::1]:/a//b", "root@[::1]:/a/b", true},
		{"root@[::1]:/a", "root@[::2]:/a", false},
		{"attic:a", "attic:a/", true},
		{"attic:", "attic:/", false},
		{"/dev/sda1", "/dev/sda1/", true},
		{"/a:b/", "/a:b", true},
		{"tmpfs", "tmpfs", true},
	}
	for _, tt := range tests {
		if got := sameSource(tt.a, tt.b); got != tt.same {
			t.Errorf("sameSource(%q, %q) is %v", tt.a, tt.b, got)
		}
	}
}

func TestMeaning(t *testing.T) {
	old := splitOptions("defaults,allow_other,exec,reconnect,transform_symlinks")
	now := SSHFSMount{}.options()
	if slices.Equal(meaning(old, true), meaning(now, true)) {
		t.Error("at boot, _netdev and nofail make a difference")
	}
	if !slices.Equal(meaning(old, false), meaning(now, false)) {
		t.Error("for a mount that is there, _netdev and nofail make no difference")
	}
	if slices.Equal(meaning(old, false), meaning(append(old, "ro"), false)) {
		t.Error("ro makes a difference")
	}
}
