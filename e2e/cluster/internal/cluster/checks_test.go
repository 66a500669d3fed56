package cluster

import (
	"context"
	"errors"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestReadyNode(t *testing.T) {
	ready := corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionTrue}
	notReady := corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionFalse, Message: "no network"}
	for name, test := range map[string]struct {
		conditions []corev1.NodeCondition
		taint      string
		fine       bool
	}{
		"ready":                    {[]corev1.NodeCondition{ready}, "", true},
		"ready, with a user taint": {[]corev1.NodeCondition{ready}, "datjob.io/gpu", true},
		"still tainted":            {[]corev1.NodeCondition{ready}, corev1.TaintNodeNotReady, false},
		"not ready":                {[]corev1.NodeCondition{notReady}, "", false},
		"no status":                {nil, "", false},
	} {
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node1"}, Status: corev1.NodeStatus{Conditions: test.conditions}}
		if test.taint != "" {
			node.Spec.Taints = []corev1.Taint{{Key: test.taint, Effect: corev1.TaintEffectNoSchedule}}
		}
		if err := readyNode(node); (err == nil) != test.fine {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestUntilStopsWhenAPartEnds(t *testing.T) {
	ended := make(chan error, 1)
	ended <- errors.New("etcd exited")
	never := func(context.Context) error { return errors.New("not yet") }
	if err := until(context.Background(), time.Minute, ended, never); err == nil || err.Error() != "etcd exited" {
		t.Errorf("got %v", err)
	}
}

func TestUntilSaysWhatItWaitedFor(t *testing.T) {
	never := func(context.Context) error { return errors.New("the node is not ready") }
	err := until(context.Background(), 60*time.Millisecond, nil, never)
	if err == nil || err.Error() != "timed out after 60ms: the node is not ready" {
		t.Errorf("got %v", err)
	}
}
