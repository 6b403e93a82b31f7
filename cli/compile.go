package cli

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/outrider-mesh/outrider/config"
	"github.com/outrider-mesh/outrider/local"
)

func (p *program) compile() *cobra.Command {
	var in input
	var apps []string
	var workload, locality string
	options := local.Options{}
	cmd := &cobra.Command{
		Use:   "compile -f PATH... --workload NAMESPACE/NAME[/INSTANCE] [flags]",
		Short: "Print the snapshot that one workload's sidecar runs, as JSON",
		Long: `Print the snapshot that one workload's sidecar runs, as JSON: the first instance unless one is named; default/local is the client.
Addresses are those that up gives; where no --app says otherwise, every application is taken to be at 127.0.0.1 and the workload's port.`,
		Example: `  outrider compile -f mesh/ --workload default/productpage-v1 > s.json
  outrider-proxy run --snapshot s.json`,
		RunE: func(_ *cobra.Command, args []string) (err error) {
			if err := in.take(args); err != nil {
				return err
			}
			if workload == "" {
				return usage("no workload: name one by --workload NAMESPACE/NAME")
			}
			options.Namespace = in.namespace
			if options.Apps, err = parseApps(apps, in.namespace); err != nil {
				return err
			}
			if options.Locality, err = parseLocality(locality); err != nil {
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
			options.MeshConfig = mesh
			snapshot, compiled, err := local.Compile(files.Objects, options, workload)
			p.tell(files.Findings, findings, files.Silence(compiled))
			switch {
			case errors.Is(err, local.ErrInput):
				return usage("%v", err)
			case err != nil:
				return fmt.Errorf("cannot compile %s: %w", workload, err)
			}
			e := json.NewEncoder(p.out)
			e.SetEscapeHTML(false)
			e.SetIndent("", "  ")
			return e.Encode(snapshot)
		},
	}
	in.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&workload, "workload", "", "whose snapshot: NAMESPACE/NAME[/INSTANCE]")
	f.StringArrayVar(&apps, "app", nil, "where an application runs: [NAMESPACE/]WORKLOAD[:PORT]=HOST:PORT[,HOST:PORT]; may be repeated")
	f.StringVar(&locality, "locality", "", "where the client is: REGION/ZONE/SUBZONE")
	f.BoolVar(&options.ExecProbes, "allow-exec-probes", false, "keep probes that are commands; outrider-proxy run needs the flag too to run them")
	f.IntVar(&options.MaxReplicas, "max-replicas", 3, "most instances of one workload")
	f.StringVar(&options.Proxy, "proxy", local.DefaultProxy, "address of the client's HTTP proxy")
	return cmd
}

// tell tells of findings beside the data.
func (p *program) tell(lists ...[]config.Finding) {
	for _, findings := range lists {
		for i := range findings {
			fmt.Fprintln(p.err, textLine(&findings[i]))
		}
	}
}
