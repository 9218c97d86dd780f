// Reads alerting rules and, for each case, series in promtool's notation at one value a minute. Says for
// each whether the rule fires after the last of its minutes, by Prometheus's own rules, engine and store.
package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/url"
	"os"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/tsdb"
)

type rule struct{ Alert, Expr, For string }

type scene struct {
	Alert   string
	Series  []string
	Minutes int
}

var begin = time.Unix(1_800_000_000, 0)

func main() {
	var told struct {
		Rules []rule
		Cases []scene
	}
	must(json.NewDecoder(os.Stdin).Decode(&told))
	byName := map[string]rule{}
	for _, one := range told.Rules {
		byName[one.Alert] = one
	}
	fired := make([]bool, len(told.Cases))
	for i, one := range told.Cases {
		fired[i] = fires(byName[one.Alert], one)
	}
	must(json.NewEncoder(os.Stdout).Encode(fired))
}

func fires(asked rule, one scene) bool {
	expressions := parser.NewParser(parser.Options{})
	dir, err := os.MkdirTemp("", "alerts")
	must(err)
	defer os.RemoveAll(dir)
	quiet := slog.New(slog.DiscardHandler)
	store, err := tsdb.Open(dir, quiet, nil, tsdb.DefaultOptions(), nil)
	must(err)
	defer store.Close()
	ctx := context.Background()
	record(ctx, store, expressions, one.Series)
	engine := promql.NewEngine(promql.EngineOpts{
		Logger: quiet, MaxSamples: 1_000_000, Timeout: time.Minute, Parser: expressions,
	})
	expr, err := expressions.ParseExpr(asked.Expr)
	must(err)
	hold := model.Duration(0)
	if asked.For != "" {
		hold, err = model.ParseDuration(asked.For)
		must(err)
	}
	alert := rules.NewAlertingRule(
		asked.Alert, expr, time.Duration(hold), 0,
		labels.EmptyLabels(), labels.EmptyLabels(), labels.EmptyLabels(), "", true, quiet,
	)
	for minute := 0; minute <= one.Minutes; minute++ {
		_, err := alert.Eval(ctx, 0, at(minute), rules.EngineQueryFunc(engine, store), &url.URL{}, 0)
		must(err)
	}
	for _, one := range alert.ActiveAlerts() {
		if one.State == rules.StateFiring {
			return true
		}
	}
	return false
}

// record writes the series minute by minute: the store takes nothing that is much older than its newest.
func record(ctx context.Context, store *tsdb.DB, reads parser.Parser, lines []string) {
	type series struct {
		named  labels.Labels
		values []parser.SequenceValue
	}
	var all []series
	longest := 0
	for _, line := range lines {
		named, values, err := reads.ParseSeriesDesc(line)
		must(err)
		all = append(all, series{named, values})
		longest = max(longest, len(values))
	}
	for minute := 0; minute < longest; minute++ {
		appender := store.Appender(ctx)
		for _, one := range all {
			if minute < len(one.values) && !one.values[minute].Omitted {
				_, err := appender.Append(0, one.named, at(minute).UnixMilli(), one.values[minute].Value)
				must(err)
			}
		}
		must(appender.Commit())
	}
}

func at(minute int) time.Time { return begin.Add(time.Duration(minute) * time.Minute) }

func must(err error) {
	if err != nil {
		panic(err)
	}
}
