package config

// Limits on what is read. They are far above any real configuration and keep time and memory bounded:
// a document at the limits takes about a second and 300 MB while it is read. Each has an error that names it.
const (
	maxFile     = 64 << 20 // bytes of one file
	maxDocument = 16 << 20 // bytes of one YAML document; a JSON file is limited by maxFile
	maxValues   = 500_000  // lines and flow items of one YAML document, values of one JSON file
	maxDepth    = 100      // nesting of mappings and lists
	maxExpanded = 200_000  // values that the aliases of one document may stand for, together
	maxFindings = 20       // findings of one object; one more says how many were left out
	maxPerFile  = 200      // findings of one file; likewise
	maxWrong    = 2000     // findings of one file at which reading it ends: it is then Broken
	maxAgain    = 2 << 20  // bytes of one file that are parsed again to find the lines of its syntax errors
)
