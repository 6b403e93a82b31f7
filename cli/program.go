// Package cli holds the commands of outrider and what they print, and nothing else.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit codes of every command. A command that runs another (up -- COMMAND) ends with that one's code instead.
const (
	exitClean    = 0
	exitFindings = 1 // findings at or above --fail-on; a measurement outside its bounds
	exitUsage    = 2 // a wrong flag or argument, or input that is not there
	exitInternal = 3 // a bug
)

// program is one run of outrider: where it reads and writes.
type program struct {
	in       io.Reader
	out, err io.Writer // data goes to out, talk to err
}

// status is an error that ends the program with a code; without text, nothing more is to be said.
type status struct {
	code int
	text string
}

func (s *status) Error() string { return s.text }

func usage(format string, args ...any) error {
	return &status{exitUsage, fmt.Sprintf(format, args...)}
}

// Main runs outrider with the process's own arguments and returns its exit code. SIGINT and SIGTERM end it in good order.
func Main() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return Run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
}

// Run runs outrider with the arguments that follow the program's name and returns its exit code. Data goes to out, talk to
// errs. The end of ctx ends a running mesh in good order.
func Run(ctx context.Context, args []string, in io.Reader, out, errs io.Writer) (code int) {
	p := &program{in: in, out: out, err: errs}
	defer func() {
		if r := recover(); r != nil {
			fmt.Fprintf(errs, "outrider: internal error: %v\n%s", r, debug.Stack())
			code = exitInternal
		}
	}()
	root := p.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitClean
	}
	var s *status
	if !errors.As(err, &s) {
		s = &status{exitInternal, err.Error()}
	}
	if s.text != "" {
		fmt.Fprintf(errs, "outrider: %s\n", s.text)
	}
	return s.code
}

func (p *program) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "outrider",
		Short: "Run and check service mesh configuration: Istio, SMI and Gateway API YAML, without a cluster",
		Args:  cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			text := fmt.Sprintf("unknown command %q", args[0])
			if like := cmd.SuggestionsFor(args[0]); len(like) > 0 {
				text += "; did you mean " + strings.Join(like, " or ") + "?"
			}
			return usage("%s (outrider --help lists the commands)", text)
		},
		SilenceErrors:              true,
		SilenceUsage:               true,
		SuggestionsMinimumDistance: 2,
	}
	root.SetIn(p.in)
	root.SetOut(p.out)
	root.SetErr(p.err)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage("%v (%s --help lists the flags)", err, cmd.CommandPath())
	})
	root.AddCommand(p.up(), p.demo(), p.check(), p.compile(), p.imports(), p.version())
	return root
}
