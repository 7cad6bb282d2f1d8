package api

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/danielgtaylor/huma/v2"

	"github.com/dustinlacewell/loom"
	"github.com/dustinlacewell/loom/internal/bind"
)

// tellingResults is how many of a node's newest results are looked at for whether
// it can be reached.
const tellingResults = 5

// A fleet is what a server finds out about nodes.
type fleet struct {
	mu    sync.Mutex
	of    *loom.Manifest
	jobs  map[*loom.Node]int // how many target each
	pings map[string]*Ping   // the last of each node
}

// targeted returns how many jobs target a node.
func (f *fleet) targeted(m *loom.Manifest, n *loom.Node) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.of != m {
		f.of, f.jobs = m, map[*loom.Node]int{}
		for _, j := range m.Jobs {
			for _, n := range j.Targets {
				f.jobs[n]++
			}
		}
	}
	return f.jobs[n]
}

// ping returns the last ping of a node, or nil.
func (f *fleet) ping(node string) *Ping {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.pings[node]
}

// pinged keeps how a ping went.
func (f *fleet) pinged(p Ping) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.pings == nil {
		f.pings = map[string]*Ping{}
	}
	f.pings[p.Node] = &p
}

// A nodesQuery says which nodes are wanted.
type nodesQuery struct {
	Targets []string `query:"targets,explode" doc:"Only those that these patterns select, as in a manifest: names, @groups, all, patterns with *, ? and [], exclusions with !" example:"[\"@web\"]"`
	Reach   []string `query:"reach,explode" doc:"Only those that are so: reachable, unreachable, unknown"`
	Cursor  string   `query:"cursor" doc:"The next of the page before"`
	Limit   int      `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"How many at most"`
}

// nodes adds what concerns nodes.
func (s *Server) nodes(api huma.API) {
	get(api, "/nodes", "nodes", "list-nodes", "Nodes, by name", s.listNodes)
	type node struct {
		Node    string `path:"node"`
		Results int    `query:"results" minimum:"0" maximum:"100" default:"20" doc:"How many of the newest results there are shown"`
	}
	get(api, "/nodes/{node}", "nodes", "get-node", "All about a node", func(ctx context.Context, in *node) (NodeDetail, error) {
		return s.nodeDetail(ctx, in.Node, in.Results)
	})
}

// listNodes returns a page of the manifest's nodes.
func (s *Server) listNodes(ctx context.Context, in *nodesQuery) (Page[Node], error) {
	m, err := s.inForce("tell of nodes")
	if err != nil {
		return Page[Node]{}, err
	}
	found := m.Nodes
	if len(in.Targets) > 0 {
		if found, err = m.Select(in.Targets...); err != nil {
			return Page[Node]{}, fmt.Errorf("%w: %w", loom.ErrNotFound, err)
		}
	}
	if len(in.Reach) == 0 {
		page := paged(found, in.Cursor, in.Limit, func(n *loom.Node) string { return n.Name })
		shown, err := s.shown(ctx, m, page.Items)
		return Page[Node]{Items: shown, Next: page.Next}, err
	}
	shown, err := s.shown(ctx, m, found)
	if err != nil {
		return Page[Node]{}, err
	}
	shown = slices.DeleteFunc(shown, func(n Node) bool { return !slices.Contains(in.Reach, n.Reach.State) })
	return paged(shown, in.Cursor, in.Limit, func(n Node) string { return n.Name }), nil
}

// shown returns nodes as a list shows them.
func (s *Server) shown(ctx context.Context, m *loom.Manifest, nodes []*loom.Node) ([]Node, error) {
	shown := make([]Node, len(nodes))
	results, err := s.Store.RecentResults(ctx, tellingResults, nodeNames(nodes)...)
	if err != nil {
		return shown, err
	}
	of := map[string][]loom.Result{}
	for _, r := range results {
		of[r.Node] = append(of[r.Node], r)
	}
	for i, n := range nodes {
		shown[i] = newNode(n)
		shown[i].Jobs = s.fleet.targeted(m, n)
		shown[i].remember(of[n.Name], s.fleet.ping(n.Name))
	}
	return shown, nil
}

// node returns a node of the manifest.
func (s *Server) node(name, what string) (*loom.Manifest, *loom.Node, error) {
	m, err := s.inForce(what)
	if err != nil {
		return nil, nil, err
	}
	if n := m.Node(name); n != nil {
		return m, n, nil
	}
	hint := ""
	if near := bind.Nearest(name, slices.Values(nodeNames(m.Nodes))); near != "" {
		hint = fmt.Sprintf(" (did you mean %q?)", near)
	}
	return nil, nil, fmt.Errorf("there is no node %q%s: %w", name, hint, loom.ErrNotFound)
}

// nodeDetail returns all there is to say of a node.
func (s *Server) nodeDetail(ctx context.Context, name string, most int) (NodeDetail, error) {
	m, n, err := s.node(name, "tell of nodes")
	if err != nil {
		return NodeDetail{}, err
	}
	results, err := s.Store.RecentResults(ctx, max(most, tellingResults), name)
	d := NodeDetail{Node: newNode(n), Ping: s.fleet.ping(name)}
	d.Jobs = s.fleet.targeted(m, n)
	d.remember(results, d.Ping)
	d.define(m, n)
	d.Results = list(results[:min(most, len(results))], NewResult)
	return d, err
}

// recent adds what jobs and nodes did last, for many of them at once.
func (s *Server) recent(api huma.API) {
	type runs struct {
		Job  []string `query:"job,explode" required:"true" doc:"Their names"`
		Most int      `query:"most" minimum:"1" maximum:"1000" default:"30" doc:"How many of each at most"`
	}
	get(api, "/recent/runs", "runs", "recent-runs", "The newest runs of jobs, by job as asked for, newest first", func(ctx context.Context, in *runs) (Page[Run], error) {
		found, err := s.Store.RecentRuns(ctx, in.Most, in.Job...)
		return Page[Run]{Items: list(found, NewRun)}, err
	})
	type results struct {
		Node []string `query:"node,explode" required:"true" doc:"Their names"`
		Most int      `query:"most" minimum:"1" maximum:"1000" default:"30" doc:"How many of each at most"`
	}
	get(api, "/recent/results", "runs", "recent-results", "The newest results on nodes, by node as asked for, newest first", func(ctx context.Context, in *results) (Page[Result], error) {
		found, err := s.Store.RecentResults(ctx, in.Most, in.Node...)
		return Page[Result]{Items: list(found, NewResult)}, err
	})
}
