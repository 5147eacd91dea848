import Glibc
import LinuxIO
import Primitives
import TestSupport
import Testing

@Suite("What becomes of requests, in the words of metrics and logs")
struct OutcomeTests {
    /// A node whose access log has these columns, and a reader of its lines.
    private static func node(
        _ scene: Scene, _ file: File, in directory: TemporaryDirectory, fields: String = "target, status, outcome"
    ) throws -> (node: SluiceNode, lines: () -> [String]) {
        let path = "\(directory.path)/access.log"
        let node = try scene.node(file, ["--set", "gateway.accessLog={path: \(path), fields: [\(fields)]}"])
        return (node, { readFile(path).split(separator: "\n").map(String.init) })
    }

    static let endings: [(name: String, head: String, outcome: String)] = [
        ("without a length", "HTTP/1.1 200 OK\r\nConnection: close\r\n", "proxied"),
        ("without a word on the connection", "HTTP/1.1 200 OK\r\n", "proxied"),
        ("of HTTP/1.0", "HTTP/1.0 200 OK\r\n", "proxied"),
        ("too short for its length", "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n", "broken"),
        ("without its last chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n", "broken"),
    ]

    @Test("an answer that the end of its connection ends is whole; one that breaks off is not", arguments: endings)
    func untilClose(row: (name: String, head: String, outcome: String)) throws {
        try Scene.play { scene in
            let backend = try scene.backend { exchange in
                let body = row.head.contains("chunked") ? "5\r\nhello\r\n" : "hello"
                try exchange.wire.send("\(row.head)Content-Type: text/plain\r\n\r\n\(body)")
                return .close
            }
            let directory = try TemporaryDirectory()
            let (node, lines) = try Self.node(
                scene, File([backend], "transforms: {compression: {types: [\"text/*\"], minBytes: 0}}"), in: directory)
            for (version, fields) in [("1.1", ""), ("1.0", ""), ("1.1", "Accept-Encoding: gzip\r\n")] {
                let answer = try? node.ask("GET /x HTTP/\(version)", fields: fields)
                #expect(row.outcome == "broken" || answer?.status == 200)
            }
            try eventually("all are logged") { lines().count == 3 }
            #expect(lines() == Array(repeating: "\"/x\" 200 \(row.outcome)", count: 3))
            #expect(try node.metrics().value("sluice_requests_total", ["outcome": row.outcome]) == 3)
        }
    }

    @Test(
        "redirects are answers, and maintenance is maintenance, whatever its status",
        arguments: [404, 500, 502, 503, 504])
    func planned(status: Int) throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            var file = File([])
            for (name, more) in [("plain", ""), ("told", ", text: Soon.")] {
                file.services.append(
                    File.Service(
                        name: name, path: "/\(name)", urls: [backend.url],
                        more: "transforms: {maintenance: {status: \(status)\(more), allow: [127.0.0.9/32]}}"))
            }
            file.services.append(
                File.Service(
                    name: "moved", path: "/moved", urls: [backend.url],
                    more: "transforms: {redirects: [{prefix: /moved, to: /plain, status: 302}]}"))
            let directory = try TemporaryDirectory()
            let (node, lines) = try Self.node(scene, file, in: directory)
            for path in ["/plain", "/told", "/moved"] { _ = try node.ask("GET \(path) HTTP/1.1") }
            #expect(try node.ask("GET /plain HTTP/1.1", from: IPAddress("127.0.0.9")).status == 200)
            try eventually("all are logged") { lines().count == 4 }
            #expect(
                lines() == [
                    "\"/plain\" \(status) maintenance", "\"/told\" \(status) maintenance", "\"/moved\" 302 answered",
                    "\"/plain\" 200 proxied",
                ])
            let metrics = try node.metrics()
            #expect(metrics.value("sluice_requests_total", ["outcome": "maintenance"]) == 2)
            for (name, value) in [("plain", 1.0), ("told", 1), ("moved", 0)] {
                #expect(metrics.value("sluice_service_maintenance", ["service": name]) == value)
            }
        }
    }

    static let ends: [(timeout: String, reason: String)] = [
        ("300ms", "the drain timeout is over"), ("1h", "told again"),
    ]

    @Test(
        "what the end of a node cuts off has its line, its number, and an answer where none had begun", arguments: ends)
    func cutOff(row: (timeout: String, reason: String)) throws {
        try Scene.play { scene in
            let silent = try scene.backend { exchange in
                // A service's own path does not reach its backend.
                if exchange.request.target == "/begin" {
                    try exchange.wire.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
                }
                _ = try? exchange.wire.readToEnd()
                return .close
            }
            let (other, echo) = (try scene.backend(), try TunnelScene.echo(scene))
            var file = File([])
            file.services = [
                File.Service(
                    name: "one", path: "/one", urls: [silent.url],
                    more: "pool: {connections: 1, idle: 0}, timeouts: {connect: 5m}"),
                File.Service(name: "half", path: "/half", urls: [silent.url]),
                File.Service(name: "other", path: "/other", urls: [other.url]),
                File.Service(name: "chat", path: "/chat", urls: [echo.url]),
            ]
            file.gateway = "drain: {timeout: \(row.timeout)}"
            let directory = try TemporaryDirectory()
            let (node, lines) = try Self.node(scene, file, in: directory)
            let isTunneled = row.timeout == "1h"
            let tunnel = isTunneled ? try TunnelScene.open(node) : nil
            func send(_ line: String) throws -> Wire {
                let wire = try node.connect()
                try wire.send("\(line) HTTP/1.1\r\nHost: test\r\n\r\n")
                return wire
            }
            let half = try send("GET /half/begin")
            #expect(try half.readHead()?.status == 200)
            let sent = try send("GET /one/sent")
            try eventually("a backend has it") { silent.requests.count == 2 }
            let waiting = try send("GET /one/waiting")
            // The one before has been read when a later one is answered.
            #expect(try node.ask("GET /other HTTP/1.1").status == 200)

            node.process.signal(SIGTERM)
            if isTunneled {
                try eventually("it drains") { node.log.contains(" draining ") }
                node.process.signal(SIGTERM)
            }
            let unanswered = try sent.readResponse()
            #expect(unanswered.status == 504 && unanswered.text.contains("\"code\":\"node-ends\""))
            #expect(unanswered.value("Connection") == "close")
            let unsent = try waiting.readResponse()
            #expect(unsent.status == 503 && unsent.text.contains("\"code\":\"node-ends\""))
            #expect(unsent.value("Retry-After") == "1")
            #expect(throws: WireError.self) { try half.read(5) }
            if let tunnel { #expect((try? tunnel.read(1)) == nil) }
            #expect(try node.process.waitForExit() == 0)
            #expect(
                lines().sorted() == (isTunneled ? ["\"/chat\" 101 tunneled"] : []) + [
                    "\"/half/begin\" 200 cut_off", "\"/one/sent\" 504 cut_off", "\"/one/waiting\" 503 cut_off",
                    "\"/other\" 200 proxied",
                ])
            #expect(node.log.contains(" drained cutOff=\(isTunneled ? 4 : 3) reason=\"\(row.reason)\""))
        }
    }
}
