//go:build !race

package loom_test

const racing = false
