package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/outrider-mesh/outrider/compile"
	"github.com/outrider-mesh/outrider/config"
)

func (p *program) check() *cobra.Command {
	var in input
	format := "text"
	failOn := config.Error
	cmd := &cobra.Command{
		Use:   "check -f PATH... [flags]",
		Short: "Say what is wrong with the files, what has no effect, and what leads nowhere",
		Long: `Say what is wrong with the files, what has no effect, and what leads nowhere: each finding with file, line, object and
field, what is wrong and what to do. A comment silences one, with a reason:  # outrider:ignore OR1234 reason

Exit code 0: nothing at or above --fail-on; 1: findings; 2: wrong usage, or files that cannot be read; 3: a bug.`,
		Example: `  outrider check -f mesh/
  kustomize build . | outrider check -f - -o github`,
		RunE: func(_ *cobra.Command, args []string) error {
			if err := in.take(args); err != nil {
				return err
			}
			files, err := in.load(p)
			if err != nil {
				return err
			}
			mesh, findings, err := in.mesh()
			if err != nil {
				return err
			}
			_, compiled := compile.New(files.Objects, compile.Options{MeshConfig: mesh})
			r := report{verb: "check", failOn: failOn}
			r.findings = append(append(slices.Clone(files.Findings), findings...), files.Silence(compiled)...)
			config.Sort(r.findings)
			if err := r.write(p.out, format); err != nil {
				return fmt.Errorf("cannot write the findings: %w", err)
			}
			fmt.Fprintf(p.err, "%s in %s: %s\n", counted(len(files.Objects), "object"), counted(len(files.Files), "file"), r.counts())
			if r.failed() {
				return &status{code: exitFindings}
			}
			return nil
		},
	}
	in.flags(cmd)
	f := cmd.Flags()
	f.VarP(choice[string]{&format, strings.Split(formatNames, ", ")}, "output", "o", "format of the findings: "+formatNames)
	f.Var(choice[config.Severity]{&failOn, []config.Severity{config.Error, config.Warning, config.Info}}, "fail-on", "least severity that makes the exit code 1: error, warning, info")
	return cmd
}

// counted writes a number with its noun.
func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
