// Package ssh reaches nodes over SSH.
package ssh
