package cluster

import (
	"context"
	"fmt"

	rbacv1 "k8s.io/api/rbac/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"datjob.io/e2e/cluster/internal/config"
	"datjob.io/e2e/cluster/internal/volumes"
)

const storageClass = "standard"

// createObjects creates what an installer of Kubernetes would: the rights of
// CoreDNS and of the volume provisioner, and the default storage class.
func createObjects(ctx context.Context, client kubernetes.Interface) error {
	create := metav1.CreateOptions{}
	rbac, storage := client.RbacV1(), client.StorageV1()
	_, role := rbac.ClusterRoles().Create(ctx, coreDNSRole(), create)
	_, dns := rbac.ClusterRoleBindings().Create(ctx, binding(config.CoreDNSUser, config.CoreDNSUser), create)
	_, provisioner := rbac.ClusterRoleBindings().Create(ctx, binding(config.VolumesUser, "system:persistent-volume-provisioner"), create)
	_, class := storage.StorageClasses().Create(ctx, defaultStorageClass(), create)
	for what, err := range map[string]error{
		"the ClusterRole of CoreDNS": role, "the ClusterRoleBinding of CoreDNS": dns,
		"the ClusterRoleBinding of the volume provisioner": provisioner, "the StorageClass": class,
	} {
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("cannot create %s: %w", what, err)
		}
	}
	return nil
}

func coreDNSRole() *rbacv1.ClusterRole {
	read := []string{"list", "watch"}
	return &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: config.CoreDNSUser},
		Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{""}, Resources: []string{"services", "namespaces"}, Verbs: read},
			{APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}, Verbs: read},
		},
	}
}

func binding(user, role string) *rbacv1.ClusterRoleBinding {
	return &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: user},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user}},
	}
}

func defaultStorageClass() *storagev1.StorageClass {
	return &storagev1.StorageClass{
		ObjectMeta: metav1.ObjectMeta{
			Name:        storageClass,
			Annotations: map[string]string{"storageclass.kubernetes.io/is-default-class": "true"},
		},
		Provisioner: volumes.Provisioner,
	}
}
