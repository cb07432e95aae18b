package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"time"
)

// secrets writes the authority that pods trust, the API server's certificate, the key of service accounts' tokens, and the
// tokens of the administrator and of kubelet, which has a node's rights and no others.
func (c *control) secrets() error {
	keys := map[string]*ecdsa.PrivateKey{}
	for _, name := range []string{"sa.key", "ca.key", "api.key"} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return err
		}
		der, err := x509.MarshalECPrivateKey(key)
		if err != nil {
			return err
		}
		if err := c.write(name, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})); err != nil {
			return err
		}
		keys[name] = key
	}
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "e2e"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	server := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "kube-apiserver"}, NotBefore: authority.NotBefore, NotAfter: authority.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses: []net.IP{net.ParseIP(serviceAddress)}, DNSNames: []string{"kubernetes", "kubernetes.default"},
	}
	for name, of := range map[string]*x509.Certificate{"ca": authority, "api": server} {
		der, err := x509.CreateCertificate(rand.Reader, of, authority, &keys[name+".key"].PublicKey, keys["ca.key"])
		if err != nil {
			return err
		}
		if err := c.write(name+".crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})); err != nil {
			return err
		}
	}
	if err := c.write("tokens.csv", []byte(`admin,admin,admin,"system:masters"`+"\n"+`kubelet,system:node:worker-1,kubelet,"system:nodes"`+"\n")); err != nil {
		return err
	}
	return c.write("admin.kubeconfig", fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters: [{name: e2e, cluster: {server: "https://%s:443", certificate-authority: %q}}]
users: [{name: user, user: {token: admin}}]
contexts: [{name: e2e, context: {cluster: e2e, user: user}}]
current-context: e2e
`, serviceAddress, c.path("ca.crt")))
}

func (c *control) write(name string, text []byte) error {
	return os.WriteFile(c.path(name), text, 0o600)
}
