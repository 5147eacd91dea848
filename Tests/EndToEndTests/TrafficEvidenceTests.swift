import LinuxIO
import Primitives
import Synchronization
import TestSupport
import Testing

@Suite("The evidence of traffic")
struct TrafficEvidenceTests {
    private final class Counter: Sendable {
        let count = Atomic<Int>(0)
        var next: Int { count.wrappingAdd(1, ordering: .relaxed).newValue }
    }

    @Test("a share of failures condemns where failures in a row do not, by option alone")
    func share() throws {
        try Scene.play { scene in
            let counter = Counter()
            // Every other answer is an error: never two in a row.
            let sick = try scene.backend {
                try $0.answer("sick", status: counter.next % 2 == 0 ? "200 OK" : "500 Internal Server Error")
                return .keep
            }
            let well = try scene.backend(named: "well")
            var file = File([sick, well])
            file.services[0].health = "active: false, failures: 2, cooldown: 1h"
            let patient = try scene.node(file)
            for _ in 0..<100 { _ = try patient.ask() }
            #expect(Set(try (0..<4).map { _ in try patient.ask().text }) == ["sick", "well"])

            file.services[0].health += ", failureShare: {share: 40%, window: 10s, requests: 10}"
            let strict = try scene.node(file)
            try eventually("it gets no more requests") {
                try (0..<6).allSatisfy { _ in try strict.ask().text == "well" }
            }
            #expect(strict.log.contains("requests failed"))
        }
    }

    /// What comes of an answer, and how it ends there.
    enum Break: String, CaseIterable, Sendable {
        case cut, silent, malformed
    }

    private static func broken(
        _ scene: Scene, _ kind: Break, every step: Int = 1
    ) throws -> RecordingBackend {
        let counter = Counter()
        return try scene.backend { exchange in
            guard counter.next % step == 0 else {
                try exchange.answer("whole")
                return .keep
            }
            switch kind {
            case .cut: try exchange.wire.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
            case .silent:
                try exchange.wire.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
                _ = try exchange.wire.endsHere()
            case .malformed:
                try exchange.wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
                try exchange.wire.send("no chunk\r\n")
            }
            return .close
        }
    }

    @Test("answers that break off behind their head add up, in a row and as a share", arguments: Break.allCases)
    func broken(kind: Break) throws {
        try Scene.play { scene in
            for rule in ["failures: 3", "failures: 1000, failureShare: {share: 60%, window: 10s, requests: 6}"] {
                let sick = try Self.broken(scene, kind)
                let well = try scene.backend(named: "well")
                var file = File([sick, well], "timeouts: {idle: 50ms}, circuitBreaker: {failures: 1000}")
                file.services[0].health = "active: false, cooldown: 1h, \(rule)"
                let node = try scene.node(file)
                try eventually("it gets no more requests") {
                    _ = try? node.ask()
                    return try !node.uses(sick.url)
                }
            }
        }
    }

    @Test("answers that break off open the breaker; one that is whole ends the row")
    func brokenInARow() throws {
        try Scene.play { scene in
            let sick = try Self.broken(scene, .cut)
            let shaky = try Self.broken(scene, .cut, every: 3)
            let well = try scene.backend(named: "well")
            var file = File([sick, shaky, well], "circuitBreaker: {failures: 3, openFor: 1h}")
            file.services[0].health = "active: false, failures: 1000"
            let node = try scene.node(file)
            try eventually("it is open") {
                _ = try? node.ask()
                return try node.row(of: sick.url).contains("\"breaker\":\"open\"")
            }
            for _ in 0..<30 { _ = try? node.ask() }
            #expect(try node.row(of: shaky.url).contains("\"breaker\":\"closed\""))
        }
    }

    @Test("an answer counts once, as what it has come to")
    func countedOnce() throws {
        try Scene.play { scene in
            // Half of them break off.
            let sick = try Self.broken(scene, .cut, every: 2)
            let well = try scene.backend(named: "well")
            var file = File([sick, well], "circuitBreaker: {failures: 1000}")
            func health(_ share: String) -> String {
                "active: false, failures: 1000, cooldown: 1h, failureShare: {share: \(share), window: 1s, requests: 20}"
            }
            file.services[0].health = health("60%")
            let patient = try scene.node(file)
            let start = SystemClock.monotonic()
            while SystemClock.monotonic() - start < .seconds(1) { _ = try? patient.ask() }
            #expect(try patient.uses(sick.url))
            file.services[0].health = health("45%")
            let strict = try scene.node(file)
            try eventually("it gets no more requests") {
                _ = try? strict.ask()
                return try !strict.uses(sick.url)
            }
        }
    }

    @Test("what a client asks for condemns nobody: 4xx, 501 and 505 are its own choice")
    func clients() throws {
        try Scene.play { scene in
            let statuses = [
                "400 Bad Request", "404 Not Found", "429 Too Many Requests", "501 Not Implemented",
                "505 HTTP Version Not Supported",
            ]
            let counter = Counter()
            let picky = try scene.backend {
                try $0.answer("", status: statuses[counter.next % statuses.count])
                return .keep
            }
            let well = try scene.backend(named: "well")
            var file = File([picky, well], "circuitBreaker: {failures: 2}")
            file.services[0].health = "active: false, failures: 2"
            let node = try scene.node(file)
            for _ in 0..<40 { _ = try node.ask() }
            #expect(picky.requests.count == 20)
            #expect(try node.admin("/api/backends").text.components(of: "\"changes\":0") == 2)
        }
    }

    @Test("no more than a share of a service goes by failed requests, and never the last")
    func maxEjected() throws {
        try Scene.play { scene in
            let sick = try (0..<3).map { index in
                try scene.backend {
                    try $0.answer("\(index)", status: "500 Internal Server Error")
                    return .keep
                }
            }
            let well = try scene.backend(named: "well")
            var file = File(sick + [well], "circuitBreaker: {failures: 1000}")
            file.services[0].health = "active: false, failures: 2, cooldown: 1h, maxEjected: 50%"
            let node = try scene.node(file)
            for _ in 0..<80 { _ = try node.ask() }
            #expect(Set(try (0..<20).map { _ in try node.ask().text }).count == 2)
            #expect(try node.admin("/api/backends").text.components(of: "{\"available\":true") == 2)
        }
    }

    @Test("a backend that fails again each time it is tried stays out longer, to a bound")
    func flapping() throws {
        try Scene.play { scene in
            let sick = try scene.backend {
                try $0.answer("", status: "500 Internal Server Error")
                return .keep
            }
            let well = try scene.backend(named: "well")
            var file = File([sick, well], "circuitBreaker: {failures: 1000}")
            file.services[0].health = "active: false, failures: 2, cooldown: 100ms, cooldownMax: 400ms"
            let node = try scene.node(file)
            func returns(after stay: String) -> Int { node.log.components(of: "tried again after \(stay) of cooldown") }
            try eventually("it has reached the bound") {
                _ = try node.ask()
                return returns(after: "400ms") >= 3
            }
            #expect(returns(after: "100ms") == 1)
            #expect(returns(after: "200ms") == 1)
            // Every time it cost two requests, and each change has its line.
            #expect(sick.requests.count <= 2 * (node.log.components(of: "is not used") + 1))
        }
    }

    @Test("a backend that has come back gets its share little by little")
    func slowStart() throws {
        try Scene.play { scene in
            let dying = try scene.backend(named: "dying")
            let steady = try scene.backend(named: "steady")
            var file = File([dying, steady])
            file.services[0].health =
                "interval: 50ms, warningInterval: 50ms, downInterval: 50ms, failures: 2, successes: 2, slowStart: 1h"
            let node = try scene.node(file)
            func down() throws -> Bool { try node.admin("/api/backends").text.contains("\"state\":\"down\"") }
            dying.stop()
            try eventually("it is down") { try down() }
            let reborn = try scene.backend(named: "reborn", port: dying.address.port)
            try eventually("it is up again") { try !down() }
            // In the first minutes of the hour less than one in fifty.
            for _ in 0..<100 { _ = try node.ask() }
            #expect(reborn.requests.count <= 10)
        }
    }
}
