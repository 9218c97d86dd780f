// Reads alerting rules and, for each case, series in promtool's notation at one value a minute. Says for
// each whether the rule fires after the last of its minutes, by Prometheus's own engine. A rule fires when
// a series of its answer has been there for `for`. Prometheus's packages for rules and for storing would do
// that too, and bring along every service discovery there is: minutes to build.
package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
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
	quiet := slog.New(slog.DiscardHandler)
	ctx := context.Background()
	store := recorded(expressions, one.Series)
	engine := promql.NewEngine(promql.EngineOpts{
		Logger: quiet, MaxSamples: 1_000_000, Timeout: time.Minute, Parser: expressions,
	})
	hold := model.Duration(0)
	if asked.For != "" {
		given, err := model.ParseDuration(asked.For)
		must(err)
		hold = given
	}
	since := map[string]int{}
	for minute := 0; minute <= one.Minutes; minute++ {
		query, err := engine.NewInstantQuery(ctx, store, nil, asked.Expr, at(minute))
		must(err)
		found, err := query.Exec(ctx).Vector()
		must(err)
		pending := map[string]int{}
		for _, sample := range found {
			name := sample.Metric.String()
			pending[name] = minute
			if begun, known := since[name]; known {
				pending[name] = begun
			}
		}
		since = pending
		query.Close()
	}
	for _, begun := range since {
		if time.Duration(one.Minutes-begun)*time.Minute >= time.Duration(hold) {
			return true
		}
	}
	return false
}

// recorded holds the series of a scene, in memory.
func recorded(reads parser.Parser, lines []string) storage.Queryable {
	var all []promql.Series
	for _, line := range lines {
		named, values, err := reads.ParseSeriesDesc(line)
		must(err)
		series := promql.Series{Metric: named}
		for minute, value := range values {
			if !value.Omitted {
				point := promql.FPoint{T: at(minute).UnixMilli(), F: value.Value}
				series.Floats = append(series.Floats, point)
			}
		}
		all = append(all, series)
	}
	return storage.QueryableFunc(func(int64, int64) (storage.Querier, error) {
		return scenery{storage.NoopQuerier(), all}, nil
	})
}

type scenery struct {
	storage.Querier
	all []promql.Series
}

func (s scenery) Select(
	_ context.Context, _ bool, _ *storage.SelectHints, matchers ...*labels.Matcher,
) storage.SeriesSet {
	found := &selected{at: -1}
	for _, series := range s.all {
		if matches(series.Metric, matchers) {
			found.series = append(found.series, promql.NewStorageSeries(series))
		}
	}
	return found
}

func matches(named labels.Labels, matchers []*labels.Matcher) bool {
	for _, one := range matchers {
		if !one.Matches(named.Get(one.Name)) {
			return false
		}
	}
	return true
}

type selected struct {
	series []storage.Series
	at     int
}

func (s *selected) Next() bool                        { s.at++; return s.at < len(s.series) }
func (s *selected) At() storage.Series                { return s.series[s.at] }
func (s *selected) Err() error                        { return nil }
func (s *selected) Warnings() annotations.Annotations { return nil }

func at(minute int) time.Time { return begin.Add(time.Duration(minute) * time.Minute) }

func must(err error) {
	if err != nil {
		panic(err)
	}
}
