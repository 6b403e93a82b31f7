package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/outrider-mesh/outrider/local"
)

// running are the flags of a mesh on one machine, which up and demo share.
type running struct {
	options  local.Options
	locality string
	last     time.Duration // 0 until told to end
	verbose  bool
}

func (r *running) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&r.options.Admin, "admin", local.DefaultAdmin, "address of the page, PromQL and the admin interface; port 0 takes a free one")
	f.StringVar(&r.options.Proxy, "proxy", local.DefaultProxy, "address of the client's HTTP proxy; port 0 takes a free one")
	f.StringVar(&r.options.ReadyFile, "ready-file", "", "write where everything listens to this file, as JSON, once it does")
	f.StringVar(&r.locality, "locality", "", "where the client is: REGION/ZONE/SUBZONE")
	f.DurationVar(&r.last, "for", 0, "end by itself after this time, such as 20s")
	f.DurationVar(&r.options.ScrapeInterval, "scrape-interval", time.Second, "how often the embedded Prometheus scrapes")
	f.StringVar(&r.options.Data, "data", "", "directory that keeps the embedded Prometheus's samples between runs")
	f.BoolVar(&r.verbose, "verbose", false, "log what operators debug with")
}

// take completes the options. What the mesh logs is told from level on.
func (r *running) take(p *program, level slog.Level) (err error) {
	if r.last < 0 {
		return usage("--for %v is negative", r.last)
	}
	if r.options.ScrapeInterval <= 0 {
		return usage("--scrape-interval %v must be above 0", r.options.ScrapeInterval)
	}
	if r.options.Locality, err = parseLocality(r.locality); err != nil {
		return err
	}
	r.options.Version = version()
	r.options.Talk = p.err
	r.options.Out = p.out
	r.options.Stdin = p.in
	if r.verbose {
		level = slog.LevelDebug
	}
	r.options.Log = slog.New(slog.NewTextHandler(p.err, &slog.HandlerOptions{Level: level}))
	return nil
}

// start starts the mesh. Its context ends with the program's, and after --for.
func (r *running) start(parent context.Context) (*local.Mesh, context.Context, context.CancelFunc, error) {
	ctx, stop := context.WithCancel(parent)
	if r.last > 0 {
		stop()
		ctx, stop = context.WithTimeout(parent, r.last)
	}
	mesh, err := local.Up(ctx, r.options)
	if err == nil {
		return mesh, ctx, stop, nil
	}
	stop()
	if errors.Is(err, local.ErrInput) {
		return nil, nil, nil, usage("%v", err)
	}
	return nil, nil, nil, fmt.Errorf("cannot start the mesh: %w", err)
}

func (p *program) up() *cobra.Command {
	var in input
	var r running
	var apps []string
	cmd := &cobra.Command{
		Use:   "up -f PATH... [flags] [-- COMMAND...]",
		Short: "Run the mesh that the files describe on this machine, and follow their changes",
		Long: `Run the mesh that the files describe on this machine: a sidecar for each instance of each workload, the gateways, and
Prometheus. An edit takes effect on save. Requests enter through the client's HTTP proxy:

  curl -x 127.0.0.1:15001 http://reviews:9080/

With a COMMAND, it runs once the mesh is ready, with HTTP_PROXY set to the client's proxy; the mesh ends with it, with its exit code.`,
		Example: `  outrider up -f bookinfo.yaml -f virtual-service-90-10.yaml --stand-ins
  outrider up -f mesh/ --app reviews-v1=127.0.0.1:9001 --app reviews-v2=127.0.0.1:9002
  outrider up -f mesh/ --stand-ins -- go test ./...`,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			paths, command := args, []string(nil)
			if dash := cmd.ArgsLenAtDash(); dash >= 0 {
				paths, command = args[:dash], args[dash:]
				if len(command) == 0 {
					return usage("there is no command after --")
				}
			}
			if err := in.take(paths); err != nil {
				return err
			}
			if err := r.take(p, slog.LevelInfo); err != nil {
				return err
			}
			r.options.Paths, r.options.Namespace = in.paths, in.namespace
			mesh, findings, err := in.mesh()
			if err != nil {
				return err
			}
			p.tell(findings)
			r.options.MeshConfig = mesh
			if r.options.Apps, err = parseApps(apps, in.namespace); err != nil {
				return err
			}
			return p.runMesh(cmd.Context(), &r, command)
		},
	}
	in.flags(cmd)
	r.flags(cmd)
	f := cmd.Flags()
	f.BoolVar(&r.options.StandIns, "stand-ins", false, "let built-in applications play the workloads whose application does not run here")
	f.StringArrayVar(&apps, "app", nil, "where an application runs already: [NAMESPACE/]WORKLOAD[:PORT]=HOST:PORT[,HOST:PORT]; may be repeated")
	f.BoolVar(&r.options.ExecProbes, "allow-exec-probes", false, "let sidecars run the commands of WorkloadGroups' probes on this machine, as you: for files that you trust")
	f.IntVar(&r.options.MaxReplicas, "max-replicas", 3, "most instances of one workload")
	f.BoolVar(&r.options.NoPrometheus, "no-prometheus", false, "leave the embedded Prometheus out")
	limits := flag.NewFlagSet("limits", flag.ContinueOnError)
	r.options.Limits.Flags(limits)
	f.AddGoFlagSet(limits)
	return cmd
}

func parseApps(texts []string, namespace string) (apps []local.App, err error) {
	for _, text := range texts {
		app, err := local.ParseApp(text, namespace)
		if err != nil {
			return nil, usage("%v", err)
		}
		apps = append(apps, app)
	}
	return apps, nil
}

// runMesh runs a mesh until the program, its time or its command ends.
func (p *program) runMesh(ctx context.Context, r *running, command []string) error {
	mesh, ctx, stop, err := r.start(ctx)
	if err != nil {
		return err
	}
	defer stop()
	if len(command) == 0 {
		return p.cutOff(mesh.Wait())
	}
	code, err := p.command(ctx, mesh.Ready().Proxy, command)
	stop()
	if waited := p.cutOff(mesh.Wait()); err == nil {
		err = waited
	}
	if err == nil && code != 0 {
		err = &status{code: code}
	}
	return err
}

// cutOff says what had to be ended by force, which is no failure of the run.
func (p *program) cutOff(err error) error {
	if err != nil {
		fmt.Fprintf(p.err, "outrider: %v\n", err)
	}
	return nil
}
