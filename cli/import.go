package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/outrider-mesh/outrider/cli/migrate"
	"github.com/outrider-mesh/outrider/config"
)

func (p *program) imports() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "import hystrix|resilience4j FILE [flags]",
		Short: "Turn a circuit breaker library's configuration into CircuitBreaker objects",
		Long: `Turn a circuit breaker library's configuration into CircuitBreaker objects: YAML on standard output, and on standard error, by
line, what does not carry over. FILE is Spring's application.properties, .yml or .yaml; "-" is standard input, taken for properties by
hystrix and for YAML by resilience4j.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return usage("cannot import from %q: outrider import hystrix FILE, or outrider import resilience4j FILE", args[0])
		},
	}
	cmd.AddCommand(
		p.importer("hystrix", "application.properties", "commands", ".properties", migrate.Hystrix),
		p.importer("resilience4j", "application.yml", "instances", ".yml", migrate.Resilience4j),
	)
	return cmd
}

type importer func(name string, data []byte, o migrate.Options) (migrate.Result, error)

func (p *program) importer(library, file, keys, extension string, run importer) *cobra.Command {
	var hosts []string
	var o migrate.Options
	cmd := &cobra.Command{
		Use:   library + " FILE [flags]",
		Short: "Turn " + library + "'s properties into CircuitBreaker objects",
		Long: "Turn " + library + "'s properties in FILE into CircuitBreaker objects, one for each of its " + keys + `. Which service one calls is not in the
file: say it by --host; without, the host is the key in lower case, with a comment to check it.

Exit code 0: everything was read; 1: a value in the file is wrong, and a default stands in its place; 2: wrong usage, or a file that cannot be read.`,
		Example: "  outrider import " + library + " " + file + " --host ratings=ratings.shop > breakers.yaml\n  outrider check -f breakers.yaml",
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usage("give one file: outrider import %s FILE", library)
			}
			if err := takeHosts(&o, hosts); err != nil {
				return err
			}
			name, data, err := p.one(args[0], extension)
			if err != nil {
				return err
			}
			result, err := run(name, data, o)
			if err != nil {
				return usage("%s: %v", args[0], err)
			}
			return p.imported(args[0], result)
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&hosts, "host", nil, "service that one of the "+keys+" calls: KEY=HOST[:PORT][/PATH]; a PATH that ends in * is a prefix; may be repeated")
	f.StringVarP(&o.Namespace, "namespace", "n", "", "namespace of the objects")
	return cmd
}

// takeHosts reads --host. A key may have any character but the last =.
func takeHosts(o *migrate.Options, hosts []string) error {
	o.Hosts = map[string]string{}
	for _, h := range hosts {
		i := strings.LastIndexByte(h, '=')
		if i < 1 || i == len(h)-1 {
			return usage("cannot read --host %q: write KEY=HOST[:PORT][/PATH]", h)
		}
		if _, twice := o.Hosts[h[:i]]; twice {
			return usage("--host names %q twice", h[:i])
		}
		o.Hosts[h[:i]] = h[i+1:]
	}
	return nil
}

// one reads one file. Standard input has a name with the extension.
func (p *program) one(path, extension string) (name string, data []byte, err error) {
	if path == "-" {
		name = "stdin" + extension
		data, err = io.ReadAll(p.in)
	} else {
		name = path
		data, err = os.ReadFile(path)
	}
	var at *os.PathError
	switch {
	case errors.As(err, &at):
		return "", nil, usage("cannot read %s: %v", path, at.Err)
	case err != nil:
		return "", nil, usage("cannot read %s: %v", path, err)
	}
	return name, data, nil
}

// imported writes the objects, which the rest of the program must be able to read, and what is to be said of them.
func (p *program) imported(file string, result migrate.Result) error {
	for _, f := range config.Decode("the objects", result.YAML).Findings {
		if f.Severity == config.Error { // the file's values were checked: it can only be the flags'
			return usage("--host or --namespace: %s: %s; %s", f.Field, f.Message, f.Remedy)
		}
	}
	if _, err := p.out.Write(result.YAML); err != nil {
		return fmt.Errorf("cannot write the objects: %w", err)
	}
	failed := false
	for _, n := range result.Notes {
		place := file
		if n.Line > 0 {
			place = fmt.Sprintf("%s:%d", file, n.Line)
		}
		severity := "note"
		if n.Wrong {
			severity, failed = "error", true
		}
		fmt.Fprintf(p.err, "%s: %s: %s\n", place, severity, n.Text)
	}
	fmt.Fprintf(p.err, "%s\n", counted(result.Objects, "CircuitBreaker"))
	if failed {
		return &status{code: exitFindings}
	}
	return nil
}
