//go:build race

package loom_test

// racing says that the race detector makes everything slow.
const racing = true
