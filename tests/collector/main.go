// The OpenTelemetry Collector with what the tests need of it: `collector --config FILE` runs it.
//
// `collector read` reads JSON lines as its file receiver does, whose module the Go proxy does not serve: each line by
// pdata's own reader. All of them come out as one request of the protocol.
package main

import (
	"bufio"
	"log"
	"os"

	"github.com/open-telemetry/opentelemetry-collector-contrib/exporter/fileexporter"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/confmap/provider/envprovider"
	"go.opentelemetry.io/collector/confmap/provider/fileprovider"
	"go.opentelemetry.io/collector/confmap/provider/yamlprovider"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/otelcol"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/otlpreceiver"
	"go.opentelemetry.io/collector/service/telemetry/otelconftelemetry"
)

const longestLine = 1 << 20 // of the file receiver, unless max_log_size says otherwise

func main() {
	work := run
	if len(os.Args) > 1 && os.Args[1] == "read" {
		work = read
	}
	if err := work(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	providers := []confmap.ProviderFactory{envprovider.NewFactory(), fileprovider.NewFactory(), yamlprovider.NewFactory()}
	return otelcol.NewCommand(otelcol.CollectorSettings{
		BuildInfo: component.BuildInfo{Command: "collector", Version: "for tests"},
		Factories: factories,
		ConfigProviderSettings: otelcol.ConfigProviderSettings{
			ResolverSettings: confmap.ResolverSettings{ProviderFactories: providers, DefaultScheme: "env"},
		},
	}).Execute()
}

func factories() (otelcol.Factories, error) {
	receivers, err := otelcol.MakeFactoryMap[receiver.Factory](otlpreceiver.NewFactory())
	if err != nil {
		return otelcol.Factories{}, err
	}
	exporters, err := otelcol.MakeFactoryMap[exporter.Factory](fileexporter.NewFactory())
	return otelcol.Factories{Receivers: receivers, Exporters: exporters, Telemetry: otelconftelemetry.NewFactory()}, err
}

func read() error {
	all := ptrace.NewTraces()
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, longestLine)
	for lines.Scan() {
		traces, err := (&ptrace.JSONUnmarshaler{}).UnmarshalTraces(lines.Bytes())
		if err != nil {
			return err
		}
		traces.ResourceSpans().MoveAndAppendTo(all.ResourceSpans())
	}
	if err := lines.Err(); err != nil {
		return err
	}
	request, err := (&ptrace.ProtoMarshaler{}).MarshalTraces(all)
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(request)
	return err
}
