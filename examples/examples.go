// Package examples holds mesh configurations that Outrider runs as they are; the demo runs the storefront.
package examples

import "embed"

// Storefront is the demo's mesh: a storefront that calls reviews (three versions), details, ratings and, by gRPC, stock.
//
//go:embed storefront/*.yaml
var Storefront embed.FS

// StorefrontDir is the directory inside Storefront that holds its files.
const StorefrontDir = "storefront"
