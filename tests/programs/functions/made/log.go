// A made-up program: a log of which functions were entered and left.
package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

const logMax = 65536

var (
	entryLog [logMax]int32
	entries  int
	budget   int
	depth    int
	next     [64]int
	touched  int
	kept     any
)

type own struct{ X int }

var _ = errors.New

func log(entry int)      { entryLog[entries%logMax] = int32(entry); entries++ }
func entered(number int) { log(4 * number); depth++ }
func left(number int)    { log(4*number + 1); depth-- }
func leaves(number int)  { log(4*number + 2); depth-- }
func begin()             { budget = 40; depth = 0 }
func mayCall() bool {
	if budget <= 0 || depth >= 10 {
		return false
	}
	budget--
	return true
}

func twice(n int) int { return 2 * n }

func there[T any](value T) *T { return &value }

//go:noinline
func use(address any) {
	if touched < 0 {
		kept = address
	}
}

func end() {
	var text strings.Builder
	fmt.Fprintf(&text, "T 1\n")
	for _, entry := range entryLog[:entries] {
		fmt.Fprintf(&text, "%c %d\n", "+-~?"[entry&3], entry>>2)
	}
	os.WriteFile(os.Args[len(os.Args)-1], []byte(text.String()), 0o644)
}
