// Reads PromQL expressions, one a line, and says which Prometheus's own parser refuses.
package main

import (
	"bufio"
	"fmt"
	"os"

	"github.com/prometheus/prometheus/promql/parser"
)

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	bad := false
	expressions := parser.NewParser(parser.Options{})
	for lines.Scan() {
		if _, err := expressions.ParseExpr(lines.Text()); err != nil {
			fmt.Printf("%s: %v\n", lines.Text(), err)
			bad = true
		}
	}
	if bad {
		os.Exit(1)
	}
}
