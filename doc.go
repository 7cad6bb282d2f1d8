// Package loom schedules work for fleets of machines and does it over plain
// SSH.
package loom
