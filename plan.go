package loom

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// Plan returns the job as one that changes nothing on its nodes: instead of doing
// its work, its task, or each of its steps whatever becomes of the others, tells
// what it would change. That is what its results have as changes. Where no task is
// a [Planner] the result is skipped, since nobody can tell; where some are not, its
// log says so. A run of it is a plan: see [Run].
func (j *Job) Plan() *Job {
	if j.plan {
		return j
	}
	steps := j.Steps
	if len(steps) == 0 {
		steps = []Step{{Task: j.Task, TaskName: j.TaskName}}
	}
	p := *j
	p.Task, p.Steps, p.Resumable, p.plan = planned(steps), nil, false, true
	return &p
}

// planned is a task that tells what steps would change.
type planned []Step

// Apply is part of Task.
func (p planned) Apply(ctx context.Context, s *Session) error {
	var unknown []string
	for i, step := range p {
		changes, err := step.plan(ctx, s)
		if skip, ok := errors.AsType[*SkipError](err); ok {
			unknown = append(unknown, skip.Reason)
			continue
		}
		if err != nil && len(p) > 1 {
			return fmt.Errorf("step %s: %w", stepName(step, i), err)
		}
		if err != nil {
			return err
		}
		for _, c := range changes {
			s.Changed("%s", c)
		}
	}
	switch why := strings.Join(unknown, "; "); {
	case len(unknown) == len(p):
		return Skip("%s", why)
	case len(unknown) > 0:
		s.Log.Info("this is not all that may change", "why", why)
	}
	return nil
}

// plan returns what the step would change, or an error of Skip if that can't be
// told.
func (s Step) plan(ctx context.Context, on *Session) ([]Change, error) {
	if p, ok := s.Task.(Planner); ok {
		return p.Plan(ctx, on)
	}
	if s.TaskName == "" {
		return nil, Skip("the task can't tell what it would change")
	}
	return nil, Skip("task %s can't tell what it would change", s.TaskName)
}
