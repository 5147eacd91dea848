import Primitives
import TestSupport
import Testing

@Suite("Probes")
struct ProbeTests {
    private static let fast =
        "interval: 50ms, warningInterval: 50ms, downInterval: 50ms, timeout: 1s, failures: 2, successes: 2, cooldown: 50ms"

    private func isDown(_ node: SluiceNode, _ backend: RecordingBackend) throws -> Bool {
        let rows = try node.admin("/api/backends").text.split(separator: "{\"available\":")
        return rows.contains { $0.contains("\"url\":\"\(backend.url)\"") && $0.contains("\"state\":\"down\"") }
    }

    /// A backend that keeps its probes and answers them with this.
    private func backend(_ scene: Scene, _ answer: String) throws -> RecordingBackend {
        scene.add(
            try RecordingBackend(serving: { backend, wire, _ in
                while let request = try wire.readRequest() {
                    backend.record(request)
                    try wire.send(answer)
                    return
                }
            }))
    }

    @Test("a probe asks as configured, and its answer's text decides")
    func body() throws {
        try Scene.play { scene in
            let good = try backend(scene, "HTTP/1.1 204 No Content\r\n\r\n")
            let ready = try backend(
                scene, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n{\"rea\"\r\n6\r\ndy\": 1\r\n0\r\n\r\n"
            )
            let text = try backend(scene, "HTTP/1.1 200 OK\r\n\r\nall is well")
            let other = try backend(scene, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbusy")
            var file = File([text, other])
            file.services[0].health =
                "path: \"/up?x=1\", headers: {Host: a.example, X-Key: k1}, expectBody: well, \(Self.fast)"
            file.services.append(
                File.Service(
                    name: "second", path: "/second", urls: [ready.url],
                    health: "expectBody: \"dy\\\": 1\", \(Self.fast)"))
            file.services.append(
                File.Service(
                    name: "third", path: "/third", urls: [good.url],
                    health: "method: OPTIONS, expect: 2xx, \(Self.fast)"))
            let node = try scene.node(file)
            try eventually("it is down") { try isDown(node, other) }
            for backend in [good, ready, text] {
                let before = backend.requests.count
                try eventually("it is probed") { backend.requests.count > before + 3 }
                #expect(try !isDown(node, backend))
            }
            let probe = try #require(text.requests.first)
            #expect(probe.method == "GET")
            #expect(probe.target == "/up?x=1")
            #expect(probe.value("Host") == "a.example")
            #expect(probe.value("X-Key") == "k1")
            #expect(probe.value("User-Agent") == "sluice-health")
            #expect(good.requests.first?.method == "OPTIONS")
        }
    }

    @Test(
        "the path of a backend's URL is no part of the Host that a probe sends",
        arguments: ["", "/", "/base", "/base/"])
    func host(path: String) throws {
        try Scene.play { scene in
            let one = try backend(scene, "HTTP/1.1 204 No Content\r\n\r\n")
            var file = File([one])
            file.services[0].urls = [one.url + path]
            file.services[0].health = Self.fast
            _ = try scene.node(file)
            try eventually("it is probed") { !one.requests.isEmpty }
            let probe = try #require(one.requests.first)
            #expect(probe.value("Host") == "\(one.address)")
            #expect(probe.target == "/health")
        }
    }

    @Test("a TCP probe is content with a connection, and fails without one")
    func tcp() throws {
        try Scene.play { scene in
            // It accepts and never answers.
            let silent = scene.add(try RecordingBackend(serving: { _, wire, _ in _ = try wire.readRequest() }))
            let dead = try scene.backend()
            dead.stop()
            var file = File([silent, dead])
            file.services[0].health = "type: tcp, \(Self.fast)"
            let node = try scene.node(file)
            try eventually("the dead one is down") { try isDown(node, dead) }
            let before = silent.connections
            try eventually("the other is probed") { silent.connections > before + 3 }
            #expect(try !isDown(node, silent))
        }
    }

    @Test("three nodes probe a backend as often as one does, in turn, and what one has found all know")
    func oneProber() throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            let probed = try scene.backend()
            var file = File([probed])
            file.gateway = "heartbeat: 100ms"
            file.services[0].health = "interval: 100ms, timeout: 1s"
            file.rateLimit = "redisURL: \"redis://127.0.0.1:\(redis.port)\""
            let nodes = try ["a", "b", "c"].map { try scene.node(file, ["--node-id", $0]) }
            try LimitTests.reached(nodes)
            let client = try redis.client()
            func number() throws -> Int {
                let report = try client("HGET", "sluice:probes:main", probed.url)
                guard let start = report.firstRange(of: "\"number\":")?.upperBound else { return 0 }
                return Int(report[start...].prefix { $0.isNumber }) ?? 0
            }
            func author() throws -> Character? {
                let report = try client("HGET", "sluice:probes:main", probed.url)
                return report.firstRange(of: "\"node\":\"").map { report[$0.upperBound] }
            }
            try eventually("the turns have begun") { try number() > 3 }
            let (startNumber, startProbes) = (try number(), probed.probes)
            var authors: Set<Character> = []
            try eventually("each has had its turn") {
                if let author = try author() { authors.insert(author) }
                return try authors.count == 3 && number() > startNumber + 20
            }
            // Every probe is one of the numbered turns: nobody probes beside them. One may be under way.
            let (probes, numbers) = (probed.probes - startProbes, try number() - startNumber)
            #expect(abs(probes - numbers) <= 2)
        }
    }
}
