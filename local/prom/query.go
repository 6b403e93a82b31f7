package prom

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/prometheus/model/timestamp"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/stats"
)

// maxPoints bounds the points of each series in an answer of query_range.
const maxPoints = 11_000

func (p *Prometheus) query(r *http.Request) answer {
	at, err := timeOr(r, "time", time.Now())
	if err != nil {
		return badParameter("time", err)
	}
	return p.run(r, func(ctx context.Context, o promql.QueryOpts) (promql.Query, error) {
		return p.engine.NewInstantQuery(ctx, p.db, o, r.FormValue("query"), at)
	})
}

func (p *Prometheus) queryRange(r *http.Request) answer {
	start, err := parseTime(r.FormValue("start"))
	if err != nil {
		return badParameter("start", err)
	}
	end, err := parseTime(r.FormValue("end"))
	if err != nil {
		return badParameter("end", err)
	}
	if end.Before(start) {
		return badParameter("end", errors.New("end timestamp must not be before start time"))
	}
	step, err := parseDuration(r.FormValue("step"))
	if err != nil {
		return badParameter("step", err)
	}
	if step <= 0 {
		return badParameter("step", errors.New("zero or negative query resolution step widths are not accepted. Try a positive integer"))
	}
	if end.Sub(start)/step > maxPoints {
		return fail(badData, errors.New("exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)"))
	}
	return p.run(r, func(ctx context.Context, o promql.QueryOpts) (promql.Query, error) {
		return p.engine.NewRangeQuery(ctx, p.db, o, r.FormValue("query"), start, end, step)
	})
}

// run begins and evaluates a query, with the parameters that both kinds have.
func (p *Prometheus) run(r *http.Request, begin func(context.Context, promql.QueryOpts) (promql.Query, error)) answer {
	limit, err := limitOf(r)
	if err != nil {
		return badParameter("limit", err)
	}
	ctx := r.Context()
	if s := r.FormValue("timeout"); s != "" {
		d, err := parseDuration(s)
		if err != nil {
			return badParameter("timeout", err)
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d)
		defer cancel()
	}
	var lookback time.Duration
	if s := r.FormValue("lookback_delta"); s != "" {
		if lookback, err = parseDuration(s); err != nil {
			return fail(badData, fmt.Errorf("error parsing lookback delta duration: %w", err))
		}
	}
	statistics := r.FormValue("stats")
	q, err := begin(ctx, promql.NewPrometheusQueryOpts(statistics == "all", lookback))
	if err != nil {
		return badParameter("query", err)
	}
	defer q.Close()
	result := q.Exec(ctx)
	if result.Err != nil {
		return failedBy(result.Err)
	}
	a := answer{warnings: result.Warnings}
	value, truncated := truncate(result.Value, limit)
	if truncated {
		a.warnings.Add(errTruncated)
	}
	data := queryData{ResultType: value.Type(), Result: encodeValue(value)} // now: Close takes the memory back
	if statistics != "" {
		data.Stats = stats.NewQueryStats(q.Stats())
	}
	a.data = data
	return a
}

type queryData struct {
	ResultType parser.ValueType `json:"resultType"`
	Result     encoded          `json:"result"`
	Stats      stats.QueryStats `json:"stats,omitempty"`
}

func truncate(v parser.Value, limit int) (parser.Value, bool) {
	if limit == 0 {
		return v, false
	}
	switch v := v.(type) {
	case promql.Matrix:
		if len(v) > limit {
			return v[:limit], true
		}
	case promql.Vector:
		if len(v) > limit {
			return v[:limit], true
		}
	}
	return v, false
}

func (p *Prometheus) formatQuery(r *http.Request) answer {
	e, err := p.parser.ParseExpr(r.FormValue("query"))
	if err != nil {
		return badParameter("query", err)
	}
	return answer{data: e.Pretty(0)}
}

func (p *Prometheus) queryExemplars(r *http.Request) answer {
	start, err := timeOr(r, "start", minTime)
	if err != nil {
		return badParameter("start", err)
	}
	end, err := timeOr(r, "end", maxTime)
	if err != nil {
		return badParameter("end", err)
	}
	if end.Before(start) {
		return fail(badData, errors.New("end timestamp must not be before start timestamp"))
	}
	e, err := p.parser.ParseExpr(r.FormValue("query"))
	if err != nil {
		return fail(badData, err)
	}
	found := []exemplars{}
	if selectors := parser.ExtractSelectors(e); len(selectors) > 0 {
		q, err := p.db.ExemplarQuerier(r.Context())
		if err != nil {
			return failedBy(err)
		}
		results, err := q.Select(timestamp.FromTime(start), timestamp.FromTime(end), selectors...)
		if err != nil {
			return failedBy(err)
		}
		for _, one := range results {
			found = append(found, exemplarsOf(one))
		}
	}
	return answer{data: found}
}
