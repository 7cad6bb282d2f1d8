package main

import _ "embed"

// fabricProgram is Fabric as a client that is told when to run.
//
//go:embed fabric.py
var fabricProgram string
