import EventLoop
import LinuxIO
import Primitives
import RedisClient
import TLS
import TestSupport
import Testing

@Suite("Redis over TLS", .timeLimit(.minutes(1)))
struct TLSTests {
    @Test("a server that proves who it is serves, a thousand commands and a large answer in one go")
    func serves() throws {
        let certificates = try Certificates()
        let held = try HeldPort()
        defer { withExtendedLifetime(held) {} }
        let port = held.port
        let server = try RedisServer(certificates.arguments(port: port))
        let tls = try TLSClient(authorities: certificates.authority)
        for (host, name) in [("127.0.0.1", nil), ("localhost", nil), ("127.0.0.1", "redis.test")] as [(String, String?)]
        {
            let client = try Client(
                RedisEndpoint(.tcp(host: host, port: port), database: 3, tls: tls, serverName: name))
            #expect(client.run(until: "ready"), "\(host) \(name ?? "")")
            for token in 0..<1_000 as Range<UInt64> { client.send(token, "ECHO", "\(token)") }
            #expect(client.run(until: "999 '999'"))
            #expect(client.log.dropFirst() == (0..<1_000).map { "\($0) '\($0)'" }[...])
            // Beyond one record, one socket buffer and one read.
            let large = String(repeating: "x", count: 3_000_000)
            client.send(1_000, "ECHO", large)
            #expect(client.run { $0.utf8.count > 3_000_000 })
            client.connection.close()
        }
        withExtendedLifetime(server) {}
    }

    @Test(
        "who cannot prove it is told nothing: another authority, another name, another address, no TLS at all",
        arguments: [
            (false, "127.0.0.1", nil, "certificate"),
            (true, "127.0.0.1", "redis.other", "ostname mismatch"),
            (true, "127.0.0.1", "10.0.0.1", "IP address mismatch"),
        ] as [(Bool, String, String?, String)])
    func refuses(trusted: Bool, host: String, name: String?, reason: String) throws {
        let certificates = try Certificates()
        let held = try HeldPort()
        defer { withExtendedLifetime(held) {} }
        let port = held.port
        let server = try RedisServer(certificates.arguments(port: port))
        let tls = try TLSClient(authorities: trusted ? certificates.authority : certificates.stranger)
        let client = try Client(
            RedisEndpoint(.tcp(host: host, port: port), password: "secret", tls: tls, serverName: name))
        #expect(client.run { $0.hasPrefix("lost") })
        #expect(client.log.first?.contains("the server's certificate does not hold") == true, "\(client.log)")
        #expect(client.log.first?.contains(reason) == true, "\(client.log)")
        #expect(!client.connection.isReady)
        client.connection.close()
        let plain = try Client(RedisEndpoint(.tcp(host: host, port: server.port), tls: tls))
        #expect(plain.run { $0.hasPrefix("lost") })
        plain.connection.close()
    }

    @Test("a port that does not answer the handshake is told so, and that it may be one without TLS")
    func unanswered() throws {
        let silent = try ListeningSocket(SocketAddress(ip: .v4Loopback, port: 0), reusePort: false)
        let client = try Client(
            RedisEndpoint(.tcp(host: "127.0.0.1", port: silent.address.port), tls: try TLSClient(authorities: nil)))
        #expect(client.run { $0.hasPrefix("lost") })
        #expect(client.log.first?.contains("no answer to the TLS handshake") == true, "\(client.log)")
        #expect(client.log.first?.contains("speaks no TLS") == true, "\(client.log)")
        client.connection.close()
    }

    @Test("a server that asks for a certificate is shown one, and refuses who has none")
    func clientCertificate() throws {
        let certificates = try Certificates()
        let held = try HeldPort()
        defer { withExtendedLifetime(held) {} }
        let port = held.port
        let server = try RedisServer(certificates.arguments(port: port, asksClients: true))
        let endpoint = RedisEndpoint(.tcp(host: "localhost", port: port))
        var known = endpoint
        known.tls = try TLSClient(
            authorities: certificates.authority, certificate: certificates.client, key: certificates.clientKey)
        let client = try Client(known)
        #expect(client.run(until: "ready"))
        client.send(1, "PING")
        #expect(client.run(until: "1 +PONG"))
        var unknown = endpoint
        unknown.tls = try TLSClient(authorities: certificates.authority)
        let other = try Client(unknown)
        // Whether the alert arrives before the reset is a matter of chance; it is tried again.
        #expect(other.run { $0.contains("certificate required") })
        #expect(!other.log.contains("ready"))
        #expect(
            other.failures.contains {
                $0.cause == .untrusted && $0.remedy.hasPrefix("the server wants a certificate of this node")
                    && $0.remedy.contains("?cert=FILE&key=FILE")
            })
        var outsider = endpoint
        outsider.tls = try TLSClient(
            authorities: certificates.authority, certificate: certificates.outsider, key: certificates.outsiderKey)
        let third = try Client(outsider)
        #expect(third.run { $0.contains("unknown ca") })
        #expect(
            third.failures.contains {
                $0.remedy.hasPrefix("the server does not trust who signed this node's certificate")
            })
        withExtendedLifetime(server) {}
    }

    @Test("without TLS, a port that speaks it is told so")
    func plain() throws {
        let certificates = try Certificates()
        let held = try HeldPort()
        defer { withExtendedLifetime(held) {} }
        let server = try RedisServer(certificates.arguments(port: held.port))
        let client = try Client(RedisEndpoint(.tcp(host: "127.0.0.1", port: held.port)))
        #expect(client.run { $0.hasPrefix("lost") })
        #expect(client.failures.first?.remedy.contains("or its port speaks TLS") == true, "\(client.failures)")
        client.connection.close()
        withExtendedLifetime(server) {}
    }

    @Test(
        "who refuses this node's certificate is not told of as one that cannot prove who it is",
        arguments: [
            ("TLS: tlsv13 alert certificate required", "the server wants a certificate of this node"),
            ("TLS: tlsv1 alert unknown ca", "the server does not trust who signed this node's certificate"),
            ("TLS: sslv3 alert certificate expired", "this node's certificate has expired: renew"),
            ("TLS: sslv3 alert bad certificate", "the server refuses this node's certificate"),
            ("TLS: sslv3 alert certificate revoked", "the server refuses this node's certificate"),
            ("the server's certificate does not hold: certificate has expired", "see the reason; nothing is sent"),
        ])
    func remedies(reason: String, remedy: String) {
        #expect(RedisFailure.untrusted(reason).remedy.hasPrefix(remedy))
    }

    @Test("messages arrive, and a server that comes back is found again")
    func messages() throws {
        let certificates = try Certificates()
        let held = try HeldPort()
        defer { withExtendedLifetime(held) {} }
        let port = held.port
        let server = try RedisServer(certificates.arguments(port: port))
        let tls = try TLSClient(authorities: certificates.authority)
        let client = try Client(RedisEndpoint(.tcp(host: "localhost", port: port), tls: tls), channels: ["a"])
        for _ in 0..<2 {
            #expect(client.run(until: "subscribed"))
            #expect(try server.client()("PUBLISH", "a", "x") == "1")
            #expect(client.run(until: "message a x"))
            server.kill()
            #expect(client.run(until: "lost"))
            client.log = []
            try server.start()
        }
    }

    @Test("what files hold by now counts for connections to come, and those that are well go on")
    func renewed() throws {
        let certificates = try Certificates()
        let held = try HeldPort()
        defer { withExtendedLifetime(held) {} }
        let server = try RedisServer(certificates.arguments(port: held.port))
        let folder = try TemporaryDirectory()
        let file = try folder.write(readFile(certificates.authority), to: "ca.pem")
        let tls = try TLSClient(authorities: file)
        let endpoint = RedisEndpoint(.tcp(host: "localhost", port: held.port), tls: tls)
        let before = try Client(endpoint)
        #expect(before.run(until: "ready"))
        #expect(try tls.renewal() == nil)
        // Written again, as before.
        _ = try folder.write(readFile(certificates.authority), to: "ca.pem")
        #expect(try tls.renewal() == nil)
        _ = try folder.write(readFile(certificates.stranger), to: "ca.pem")
        let renewal = try #require(try tls.renewal())
        // Nothing counts before it is taken.
        let between = try Client(endpoint)
        #expect(between.run(until: "ready"))
        between.connection.close()
        tls.take(renewal)
        #expect(try tls.renewal() == nil)
        before.send(1, "PING")
        #expect(before.run(until: "1 +PONG"))
        let after = try Client(endpoint)
        #expect(after.run { $0.contains("the server's certificate does not hold") })
        after.connection.close()
        before.connection.close()
        _ = try folder.write("nothing", to: "ca.pem")
        #expect(throws: TLSSetupError.self) { try tls.renewal() }
        withExtendedLifetime(server) {}
    }

    @Test("files that are no certificates and keys are told")
    func files() throws {
        let certificates = try Certificates()
        func failure(_ authorities: String?, _ certificate: String?, _ key: String?) -> String {
            do throws(TLSSetupError) {
                _ = try TLSClient(authorities: authorities, certificate: certificate, key: key)
                return ""
            } catch {
                return error.description
            }
        }
        let missing = "/nonexistent: no certificates to trust: there is no such file; name one in PEM"
        #expect(failure("/nonexistent", nil, nil) == missing)
        #expect(failure(certificates.serverKey, nil, nil).hasPrefix("\(certificates.serverKey): no certificates"))
        #expect(failure(nil, certificates.clientKey, nil).hasPrefix("\(certificates.clientKey): no certificate"))
        #expect(failure(nil, certificates.client, nil).hasPrefix("\(certificates.client): no private key"))
        #expect(
            failure(nil, certificates.client, certificates.serverKey).hasPrefix(
                "\(certificates.serverKey): not the key of \(certificates.client)"))
        #expect(failure(nil, certificates.client, certificates.clientKey) == "")
    }
}
