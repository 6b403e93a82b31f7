// Command outrider is the whole tool: the mesh on one machine, and the commands that check and compile its configuration.
package main

import (
	"os"

	"github.com/outrider-mesh/outrider/cli"
)

func main() {
	os.Exit(cli.Main())
}
