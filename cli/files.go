package cli

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	meshv1alpha1 "istio.io/api/mesh/v1alpha1"

	"github.com/outrider-mesh/outrider/config"
	"github.com/outrider-mesh/outrider/mesh/model"
)

// input is the files that a verb reads, and what else it takes as given about them.
type input struct {
	paths      []string
	namespace  string
	meshConfig string
}

// flags adds the flags that say what is read. Arguments are further paths, so that a shell may expand -f *.yaml.
func (i *input) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVarP(&i.paths, "file", "f", nil, "file or directory of YAML and JSON objects, \"-\" for standard input; may be repeated, and further arguments are paths too")
	f.StringVarP(&i.namespace, "namespace", "n", "default", "namespace of objects that name none")
	f.StringVar(&i.meshConfig, "mesh-config", "", "file with Istio's MeshConfig, instead of the ConfigMap istio in istio-system")
	if err := cmd.MarkFlagFilename("file", "yaml", "yml", "json"); err != nil {
		panic(err) // the flag is defined above
	}
}

// take adds the arguments to the paths.
func (i *input) take(args []string) error {
	if len(i.paths) == 0 && len(args) > 0 {
		return usage("unexpected argument %q: files are given by -f", args[0])
	}
	i.paths = append(i.paths, args...)
	if len(i.paths) == 0 {
		return usage("no files: give them by -f PATH, or - for standard input")
	}
	return nil
}

// mesh reads the MeshConfig, nil where none was given. What is wrong in it is told; what could be read holds.
func (i *input) mesh() (*meshv1alpha1.MeshConfig, []config.Finding, error) {
	if i.meshConfig == "" {
		return nil, nil, nil
	}
	text, err := os.ReadFile(i.meshConfig)
	if err != nil {
		return nil, nil, usage("cannot read --mesh-config: %v", err)
	}
	mesh, findings := config.MeshConfig(text, config.Source{File: i.meshConfig, Line: 1, Column: 1})
	return mesh, findings, nil
}

// load reads the files.
func (i *input) load(p *program) (*config.Files, error) {
	files, err := config.Options{Namespace: i.namespace, Stdin: p.in}.Load(i.paths)
	if err != nil {
		return nil, usage("%v", err)
	}
	return files, nil
}

// parseLocality reads REGION[/ZONE[/SUBZONE]].
func parseLocality(text string) (model.Locality, error) {
	parts := strings.Split(text, "/")
	if len(parts) > 3 {
		return model.Locality{}, usage("cannot read --locality %q: write REGION/ZONE/SUBZONE", text)
	}
	parts = append(parts, "", "")
	return model.Locality{Region: parts[0], Zone: parts[1], SubZone: parts[2]}, nil
}

// choice is a flag's value out of a few.
type choice[T ~string] struct {
	value   *T
	choices []T
}

func (c choice[T]) String() string { return string(*c.value) }
func (c choice[T]) Type() string   { return "name" }

func (c choice[T]) Set(text string) error {
	var names []string
	for _, v := range c.choices {
		if T(text) == v {
			*c.value = v
			return nil
		}
		names = append(names, string(v))
	}
	return fmt.Errorf("choose one of %s", strings.Join(names, ", "))
}
