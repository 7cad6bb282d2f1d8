module github.com/dustinlacewell/loom/bench/fleet

go 1.26.0

require (
	github.com/dustinlacewell/loom v0.0.0
	golang.org/x/crypto v0.58.0
	golang.org/x/sys v0.49.0
)

require github.com/adhocore/gronx v1.20.4 // indirect

replace github.com/dustinlacewell/loom => ../..
