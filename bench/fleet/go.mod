module github.com/dustinlacewell/loom/bench/fleet

go 1.26.0

require (
	github.com/dustinlacewell/loom v0.0.0
	golang.org/x/crypto v0.58.0
	golang.org/x/sys v0.49.0
)

require (
	github.com/adhocore/gronx v1.20.4 // indirect
	github.com/kevinburke/ssh_config v1.6.0 // indirect
	github.com/kr/fs v0.1.0 // indirect
	github.com/pkg/sftp v1.13.12 // indirect
	gopkg.in/yaml.v3 v3.0.1 // indirect
)

replace github.com/dustinlacewell/loom => ../..
