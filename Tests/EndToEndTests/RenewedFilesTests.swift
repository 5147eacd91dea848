import Glibc
import Primitives
import TestSupport
import Testing

/// Certificates and keys are renewed in their files while a node runs: a reload takes them.
@Suite("Renewed TLS files of Redis", .timeLimit(.minutes(2)))
struct RenewedFilesTests {
    private struct Stage {
        let certificates: Certificates
        let held: HeldPort
        let redis: RedisServer
        let folder: TemporaryDirectory
        let file: File

        init(_ scene: Scene, asksClients: Bool) throws {
            certificates = try Certificates()
            held = try scene.freePort()
            redis = try scene.redis(certificates.arguments(port: held.port, asksClients: asksClients))
            folder = try TemporaryDirectory()
            var file = File([try scene.backend()])
            file.gateway = "heartbeat: 100ms"
            let client = asksClients ? "&cert=\(folder.path)/client.pem&key=\(folder.path)/client.key" : ""
            file.rateLimit =
                "requestsPerSecond: 1000, redisURL: \"rediss://localhost:\(held.port)?ca=\(folder.path)/ca.pem\(client)\""
            self.file = file
        }

        func put(_ path: String, _ name: String) throws { _ = try folder.write(readFile(path), to: name) }
    }

    private func isReached(_ node: SluiceNode) throws -> Bool {
        let text = try node.admin("/readyz").text
        return text.contains("\"cluster\":\"reached\"") && text.contains("\"limits\":\"reached\"")
    }

    private func failures(_ node: SluiceNode) throws -> Int {
        let text = try node.admin("/api/redis").text
        return ["untrusted", "unreachable"].reduce(0) { sum, name in
            let start = text.firstRange(of: "\"\(name)\":")?.upperBound ?? text.endIndex
            return sum + (Int(text[start...].prefix { $0.isNumber }) ?? 0)
        }
    }

    @Test("a certificate that the server refuses, renewed: a reload brings Redis back, and the log was not flooded")
    func client() throws {
        try Scene.play { scene in
            let stage = try Stage(scene, asksClients: true)
            try stage.put(stage.certificates.authority, "ca.pem")
            try stage.put(stage.certificates.stranger, "client.pem")
            try stage.put(stage.certificates.stranger.replacing(".pem", with: ".key"), "client.key")
            let node = try scene.node(stage.file)
            try eventually("it has tried often") { try failures(node) >= 12 }
            // An alert and a reset alternate; each is told once.
            #expect(node.log.ranges(of: "cluster out of reach").count <= 3, "\(node.log)")
            #expect(node.log.ranges(of: "Redis lost").count <= 3, "\(node.log)")
            #expect(try !isReached(node))
            try stage.put(stage.certificates.client, "client.pem")
            try stage.put(stage.certificates.clientKey, "client.key")
            #expect(try node.reload(stage.file.yaml).contains("\"version\":2"))
            #expect(node.log.contains("the TLS files of Redis hold something else"))
            try eventually("Redis is back") { try isReached(node) }
        }
    }

    @Test("another authority in the file: connections go on, and none is made to a server that it has not signed for")
    func authority() throws {
        try Scene.play { scene in
            let stage = try Stage(scene, asksClients: false)
            try stage.put(stage.certificates.authority, "ca.pem")
            let node = try scene.node(stage.file)
            try eventually("it has Redis") { try isReached(node) }
            try node.reload(stage.file.yaml)
            #expect(!node.log.contains("the TLS files of Redis hold something else"))
            try stage.put(stage.certificates.stranger, "ca.pem")
            try node.reload(stage.file.yaml)
            #expect(node.log.contains("the TLS files of Redis hold something else"))
            #expect(try isReached(node))
            stage.redis.kill()
            try stage.redis.start()
            try eventually("it does not trust it") {
                try node.admin("/api/redis").text.contains("the server's certificate does not hold")
            }
            // A file of no use changes nothing.
            _ = try stage.folder.write("nothing", to: "ca.pem")
            #expect(try node.reload(stage.file.yaml).contains("ca.pem: no certificates to trust"))
            try stage.put(stage.certificates.authority, "ca.pem")
            try node.reload(stage.file.yaml)
            try eventually("Redis is back") { try isReached(node) }
        }
    }
}
