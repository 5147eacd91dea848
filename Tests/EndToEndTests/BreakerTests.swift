import LinuxIO
import Primitives
import Synchronization
import TestSupport
import Testing

@Suite("Circuit breakers")
struct BreakerTests {
    private final class Switch: Sendable {
        let fails = Atomic<Bool>(true)
    }

    /// One that answers so while the switch says that it fails.
    private static func backend(_ scene: Scene, _ power: Switch, _ status: String) throws -> RecordingBackend {
        try scene.backend { exchange in
            try exchange.answer("shaky", status: power.fails.load(ordering: .relaxed) ? status : "200 OK")
            return .keep
        }
    }

    /// Nodes with two backends, one of which fails until the switch is turned.
    private func cluster(
        _ scene: Scene, _ redis: RedisServer, _ names: [String], openFor: String
    ) throws -> (Switch, RecordingBackend, [SluiceNode]) {
        let power = Switch()
        let shaky = try Self.backend(scene, power, "503 Service Unavailable")
        var file = File(
            [shaky, try scene.backend(named: "steady")], "circuitBreaker: {failures: 3, openFor: \(openFor)}")
        file.gateway = "heartbeat: 100ms"
        file.services[0].health = "active: false, failures: 1000"
        file.rateLimit = "redisURL: \"redis://127.0.0.1:\(redis.port)\""
        let nodes = try names.map { try scene.node(file, ["--node-id", $0]) }
        try LimitTests.reached(nodes)
        return (power, shaky, nodes)
    }

    @Test("a failing backend is left alone by all nodes, one request of the cluster tries it, and its answer decides")
    func cluster() throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            let (power, shaky, nodes) = try cluster(scene, redis, ["a", "b", "c"], openFor: "1s")
            func breaker(_ node: SluiceNode) throws -> String {
                let rows = try node.admin("/api/backends").text.split(separator: "{\"available\":")
                let row = rows.first { $0.contains("\"url\":\"\(shaky.url)\"") } ?? ""
                guard let start = row.firstRange(of: "\"breaker\":\"")?.upperBound else { return "" }
                return String(row[start...].prefix { $0 != "\"" })
            }
            // One node sees it fail, and all stop.
            while try breaker(nodes[0]) == "closed" { _ = try nodes[0].ask() }
            for node in nodes { try eventually("it is open") { try breaker(node) != "closed" } }
            #expect(try redis.client()("HGET", "sluice:breaker:main", shaky.url).contains("\"state\":\"open\""))

            // Each opening that follows has one trial, however many ask.
            let before = shaky.requests.count
            func number() throws -> Int {
                let text = try redis.client()("HGET", "sluice:breaker:main", shaky.url)
                guard let start = text.firstRange(of: "\"number\":")?.upperBound else { return 0 }
                return Int(text[start...].prefix { $0.isNumber }) ?? 0
            }
            let first = try number()
            try eventually("three trials have failed") {
                for node in nodes { for _ in 0..<4 { _ = try node.ask() } }
                return try number() >= first + 6
            }
            #expect(shaky.requests.count - before == (try number() - first) / 2)

            power.fails.store(false, ordering: .relaxed)
            try eventually("it is closed") {
                for node in nodes { #expect(try node.ask().status == 200) }
                return try nodes.allSatisfy { try breaker($0) == "closed" }
            }
            for node in nodes {
                try eventually("it is used") { try node.ask().text == "shaky" }
            }
        }
    }

    @Test("when the node that has the trial has died, another one tries, however many ask meanwhile")
    func forgottenTrial() throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            let (power, shaky, nodes) = try cluster(scene, redis, ["a", "b"], openFor: "300ms")
            let client = try redis.client()
            // The claims of the first openings, by a node that is no more.
            for number in stride(from: 1, to: 40, by: 2) {
                try client("SET", "sluice:trial:main:\(number):\(shaky.url)", "ghost", "PX", "1500")
            }
            while try !nodes[0].row(of: shaky.url).contains("\"breaker\":\"half-open\"") { _ = try nodes[0].ask() }
            let before = shaky.requests.count
            power.fails.store(false, ordering: .relaxed)
            for node in nodes { for _ in 0..<10 { #expect(try node.ask().text == "steady") } }
            #expect(shaky.requests.count == before)
            #expect(try client("GET", "sluice:trial:main:1:\(shaky.url)") == "'ghost'")
            try eventually("another has tried") {
                for node in nodes { #expect(try node.ask().status == 200) }
                return try nodes.allSatisfy { try $0.row(of: shaky.url).contains("\"breaker\":\"closed\"") }
            }
        }
    }

    @Test("the only backend of a service is shut where the file asks for it, and tried again; else it is spared")
    func alone() throws {
        try Scene.play { scene in
            let power = Switch()
            let backend = try Self.backend(scene, power, "500 Internal Server Error")
            let strict = try scene.node(File([backend], "circuitBreaker: {failures: 3, openFor: 300ms}"))
            for _ in 0..<3 { #expect(try strict.ask().status == 500) }
            try eventually("it is open") { try strict.ask().status == 503 }
            let before = backend.requests.count
            for _ in 0..<20 { #expect(try [500, 503].contains(strict.ask().status)) }
            // Every request that passed was a trial, and there is a line about each.
            let trials = strict.log.components(of: "is half-open")
            #expect(backend.requests.count - before <= trials)
            power.fails.store(false, ordering: .relaxed)
            try eventually("it is closed") { try strict.ask().status == 200 }
            for _ in 0..<5 { #expect(try strict.ask().status == 200) }

            power.fails.store(true, ordering: .relaxed)
            let mild = try scene.node(File([backend]))
            for _ in 0..<20 { #expect(try mild.ask().status == 500) }
        }
    }
}
