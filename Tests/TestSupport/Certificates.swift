// An authority of our own, and what it has signed: for servers and clients under test.

import Primitives

package final class Certificates {
    private let directory: TemporaryDirectory

    /// Files in PEM. `server` is good for localhost, redis.test and 127.0.0.1.
    package let authority: String
    package let server: String
    package let serverKey: String
    package let client: String
    package let clientKey: String
    /// Of a client that the stranger has signed.
    package let outsider: String
    package let outsiderKey: String
    /// An authority that has signed nothing here.
    package let stranger: String

    package init() throws {
        let directory = try TemporaryDirectory()
        self.directory = directory
        func path(_ name: String) -> String { "\(directory.path)/\(name)" }
        func make(_ name: String, _ more: [String]) throws {
            let openssl = try ChildProcess(
                "/usr/bin/openssl",
                [
                    "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                    "-keyout", path("\(name).key"), "-out", path("\(name).pem"), "-subj", "/CN=\(name)",
                ] + more)
            guard try openssl.waitForExit() == 0 else { throw ProcessError("openssl: \(openssl.errors)") }
        }
        let signed = ["-CA", path("authority.pem"), "-CAkey", path("authority.key")]
        try make("authority", [])
        try make("stranger", [])
        try make(
            "server",
            signed + [
                "-addext", "subjectAltName=DNS:localhost,DNS:redis.test,IP:127.0.0.1", "-addext",
                "basicConstraints=critical,CA:FALSE",
            ])
        try make("client", signed + ["-addext", "basicConstraints=critical,CA:FALSE"])
        try make(
            "outsider",
            ["-CA", path("stranger.pem"), "-CAkey", path("stranger.key")]
                + ["-addext", "basicConstraints=critical,CA:FALSE"])
        authority = path("authority.pem")
        stranger = path("stranger.pem")
        server = path("server.pem")
        serverKey = path("server.key")
        client = path("client.pem")
        clientKey = path("client.key")
        outsider = path("outsider.pem")
        outsiderKey = path("outsider.key")
    }

    /// What a Redis server needs to speak TLS.
    package func arguments(port: UInt16, asksClients: Bool = false) -> [String] {
        [
            "--tls-port", "\(port)", "--tls-cert-file", server, "--tls-key-file", serverKey, "--tls-ca-cert-file",
            authority, "--tls-auth-clients", asksClients ? "yes" : "no",
        ]
    }
}
