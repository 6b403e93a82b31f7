package cli

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"github.com/outrider-mesh/outrider/config"
)

// Escapes of GitHub's workflow commands: a message and a property each have their own set.
var (
	githubMessage  = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A")
	githubProperty = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C")
)

// writeGitHub writes a workflow command a finding, which GitHub shows beside the line of a pull request.
func writeGitHub(w io.Writer, r *report) error {
	b := bufio.NewWriter(w)
	for i := range r.findings {
		f := &r.findings[i]
		level := "error"
		switch f.Severity {
		case config.Warning:
			level = "warning"
		case config.Info:
			level = "notice"
		}
		var properties []string
		if f.File != "" {
			properties = append(properties, "file="+githubProperty.Replace(f.File))
			if f.Line > 0 {
				properties = append(properties, fmt.Sprintf("line=%d", f.Line))
			}
			if f.Column > 0 {
				properties = append(properties, fmt.Sprintf("col=%d", f.Column))
			}
		}
		properties = append(properties, "title="+githubProperty.Replace(f.ID))
		fmt.Fprintf(b, "::%s %s::%s\n", level, strings.Join(properties, ","), githubMessage.Replace(sentence(f)))
	}
	return b.Flush()
}
