import Foundation
import Primitives
import Synchronization
import TestSupport
import Testing

/// `00-TRACE-PARENT-FLAGS`, taken apart.
struct ParentField {
    let trace: String
    let parent: String
    let flags: String

    init?(_ text: String?) {
        let parts = (text ?? "").split(separator: "-").map(String.init)
        guard parts.count == 4, parts[0] == "00", parts[1].count == 32, parts[2].count == 16, parts[3].count == 2 else {
            return nil
        }
        (trace, parent, flags) = (parts[1], parts[2], parts[3])
    }
}

@Suite("Traces through a node")
struct TracingTests {
    private static let trace = "0af7651916cd43dd8448eb211c80319c"
    private static let span = "b7ad6b7169203331"

    private static func text(_ file: File, _ tracing: String) -> String { file.yaml + "tracing: {\(tracing)}\n" }

    private static func start(_ scene: Scene, _ file: File, _ tracing: String) throws -> SluiceNode {
        try scene.node(file, ["--set", "tracing={\(tracing)}"])
    }

    @Test("off, what a client says goes through")
    func off() throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            let node = try scene.node(File([backend]))
            _ = try node.ask(fields: "traceparent: any thing\r\n")
            _ = try node.ask()
            #expect(backend.requests.map { $0.values("traceparent") } == [["any thing"], []])
        }
    }

    @Test("a trace is continued with a span of ours, and its state goes along")
    func continued() throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            let node = try Self.start(scene, File([backend]), "accept: all")
            for flags in ["01", "00"] {
                _ = try node.ask(
                    fields:
                        "TraceParent: 00-\(Self.trace)-\(Self.span)-\(flags)\r\ntracestate: a=1\r\nTracestate: b=2, c@d=3\r\n"
                )
                let request = try #require(backend.requests.last)
                let parents = request.values("traceparent")
                let parent = try #require(ParentField(parents.first))
                #expect(parents.count == 1 && parent.trace == Self.trace && parent.flags == flags)
                #expect(parent.parent != Self.span)
                #expect(request.values("tracestate") == ["a=1", "b=2, c@d=3"])
            }
        }
    }

    @Test(
        "what is no trace begins a new one, and its state stays behind",
        arguments: [
            "", "traceparent: 00-\(trace)-\(span)\r\n", "traceparent: ff-\(trace)-\(span)-01\r\n",
            "traceparent: 00-00000000000000000000000000000000-\(span)-01\r\n",
            "traceparent: 00-\(trace)-0000000000000000-01\r\n",
            "traceparent: 00-\(trace.uppercased())-\(span)-01\r\n", "traceparent: 00-\(trace)-\(span)-01-more\r\n",
            "traceparent: 00-\(trace)-\(span)-01\r\ntraceparent: 00-\(trace)-\(span)-01\r\n", "traceparent:\r\n",
        ])
    func begun(fields: String) throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            let node = try Self.start(scene, File([backend]), "sample: 100%")
            _ = try node.ask(fields: fields + "tracestate: a=1\r\n")
            let request = try #require(backend.requests.last)
            let parents = request.values("traceparent")
            let parent = try #require(ParentField(parents.first))
            #expect(parents.count == 1 && parent.trace != Self.trace && parent.flags == "01")
            #expect(request.values("tracestate").isEmpty)
        }
    }

    @Test("a state that is none is dropped, and the trace goes on")
    func badState() throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            let node = try Self.start(scene, File([backend]), "accept: all")
            _ = try node.ask(
                fields: "traceparent: 00-\(Self.trace)-\(Self.span)-01\r\ntracestate: a=1\r\ntracestate: B=2\r\n")
            let request = try #require(backend.requests.last)
            #expect(ParentField(request.value("traceparent"))?.trace == Self.trace)
            #expect(request.values("tracestate").isEmpty)
        }
    }

    @Test("who is not believed begins a new trace, and a share of the new ones is recorded")
    func options() throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            var file = File([backend])
            file.gateway = "trustedProxies: [127.0.0.2/32]"
            let node = try scene.node(file, [])
            let near = try #require(IPAddress("127.0.0.2"))
            func flags(_ tracing: String, from source: IPAddress? = nil) throws -> ParentField {
                try node.reload(Self.text(file, tracing))
                _ = try node.ask(fields: "traceparent: 00-\(Self.trace)-\(Self.span)-01\r\n", from: source)
                return try #require(ParentField(backend.requests.last?.value("traceparent")))
            }
            #expect(try flags("accept: trusted", from: near).trace == Self.trace)
            #expect(try flags("accept: trusted").trace != Self.trace)
            #expect(try flags("accept: none", from: near).trace != Self.trace)
            #expect(try flags("accept: none, sample: 0%").flags == "00")
            #expect(try flags("accept: none, sample: 100%").flags == "01")

            try node.reload(Self.text(file, "sample: 25%"))
            let before = backend.requests.count
            let wire = try node.connect()
            for _ in 0..<400 {
                try wire.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
                #expect(try wire.readResponse().status == 200)
            }
            let parents = backend.requests[before...].compactMap { ParentField($0.value("traceparent")) }
            #expect(Set(parents.map(\.trace)).count == 400)
            // Ten standard deviations around a hundred.
            let sampled = parents.count { $0.flags == "01" }
            #expect(sampled > 15 && sampled < 190)
        }
    }

    @Test("the log and transforms name the trace")
    func named() throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            let file = File([backend], "transforms: {response: {set: {X-Trace: \"{traceID}\"}}}")
            let node = try scene.node(
                file,
                ["--set", "tracing={sample: 1%}", "--set", "gateway.accessLog={fields: [traceID, spanID, status]}"])
            let answer = try node.ask(fields: "traceparent: 00-\(Self.trace)-\(Self.span)-00\r\n")
            #expect(answer.value("X-Trace") == Self.trace)
            _ = try node.ask("nonsense")
            let span = try #require(ParentField(backend.requests.last?.value("traceparent"))).parent
            #expect(try node.terminate() == 0)
            #expect(node.output == "\(Self.trace) \(span) 200\n- - 400\n")
        }
    }
}

/// What collects spans in the tests: an HTTP server that answers as it is told.
private final class Collector {
    let backend: RecordingBackend

    init(
        _ scene: Scene,
        answer: @escaping @Sendable (Int) -> (status: String, fields: String, body: String)? = { _ in
            ("200 OK", "", "{}")
        }
    ) throws {
        let count = Counter()
        backend = try scene.backend { exchange in
            guard let (status, fields, body) = answer(count.next()) else {
                // It hangs.
                _ = try exchange.wire.endsHere()
                return .close
            }
            try exchange.answer(body, status: status, fields: "Content-Type: application/json\r\n" + fields)
            return .close
        }
    }

    var endpoint: String { "\(backend.url)/v1/traces" }

    /// All spans, with the resource that they came from.
    func spans() throws -> [Span] {
        try backend.requests.flatMap { request -> [Span] in
            #expect(request.startLine == "POST /v1/traces HTTP/1.1")
            #expect(request.value("Content-Type") == "application/json")
            let object = try #require(try JSONSerialization.jsonObject(with: Data(request.body)) as? [String: Any])
            let resources = try #require(object["resourceSpans"] as? [[String: Any]])
            return try resources.flatMap { resource -> [Span] in
                let attributes = try Span.attributes((resource["resource"] as? [String: Any])?["attributes"])
                let scopes = try #require(resource["scopeSpans"] as? [[String: Any]])
                return try scopes.flatMap { scope -> [Span] in
                    #expect((scope["scope"] as? [String: Any])?["name"] as? String == "sluice")
                    return try #require(scope["spans"] as? [[String: Any]]).map { try Span($0, resource: attributes) }
                }
            }
        }
    }
}

private final class Counter: Sendable {
    private let count = Atomic(0)
    func next() -> Int { count.add(1, ordering: .relaxed).oldValue }
}

private struct Span {
    let members: [String: Any]
    let attributes: [String: String]
    let resource: [String: String]

    init(_ members: [String: Any], resource: [String: String]) throws {
        self.members = members
        self.resource = resource
        attributes = try Self.attributes(members["attributes"])
    }

    static func attributes(_ value: Any?) throws -> [String: String] {
        var all: [String: String] = [:]
        for entry in try #require(value as? [[String: Any]]) {
            let key = try #require(entry["key"] as? String)
            let value = try #require(entry["value"] as? [String: Any])
            #expect(value.count == 1 && all[key] == nil, "\(key)")
            // OTLP's JSON has 64-bit numbers as texts.
            all[key] = try #require((value["stringValue"] ?? value["intValue"]) as? String, "\(key)")
        }
        return all
    }

    subscript(_ name: String) -> String { members[name] as? String ?? "" }
    var kind: Int { members["kind"] as? Int ?? 0 }
    var code: Int? { (members["status"] as? [String: Any])?["code"] as? Int }
    var start: UInt64 { UInt64(self["startTimeUnixNano"]) ?? 0 }
    var end: UInt64 { UInt64(self["endTimeUnixNano"]) ?? 0 }
}

@Suite("Spans go to a collector")
struct SpanExportTests {
    private static func tracing(_ collector: Collector, _ more: String = "interval: 20ms") -> [String] {
        ["--set", "tracing={otlp: {endpoint: \"\(collector.endpoint)\", \(more)}}", "--node-id", "one"]
    }

    @Test("what was asked of a node, and what it asked a backend, by the conventions for HTTP")
    func spans() throws {
        try Scene.play { scene in
            let backend = try scene.backend {
                try $0.answer("ok", status: $0.request.target.hasSuffix("gone") ? "404 Not Found" : "200 OK")
                return .keep
            }
            let collector = try Collector(scene)
            var file = File([File.Service(path: "/api", urls: [backend.url])])
            file.gateway = "requestID: true"
            let node = try scene.node(
                file,
                Self.tracing(
                    collector,
                    "interval: 20ms, serviceName: edge, headers: {Authorization: Bearer s3cret, User-Agent: mine}"))
            let trace = "0af7651916cd43dd8448eb211c80319c"
            _ = try node.ask(
                "GET /api/a?key=secret HTTP/1.1",
                fields:
                    "traceparent: 00-\(trace)-b7ad6b7169203331-01\r\nUser-Agent: curl \"x\"\r\nX-Request-Id: seven\r\n")
            _ = try node.ask("GET /api/gone HTTP/1.1")
            // Nobody records this one.
            _ = try node.ask(fields: "traceparent: 00-\(trace)-b7ad6b7169203331-00\r\n")
            try eventually("four spans are there") { try collector.spans().count == 4 }
            let spans = try collector.spans()
            for span in spans {
                #expect(span.resource["service.name"] == "edge" && span.resource["service.instance.id"] == "one")
                #expect(span.resource["service.version"]?.isEmpty == false)
                #expect(span["spanId"].count == 16 && span["traceId"].count == 32)
                #expect(span.start <= span.end && span.start > 1_700_000_000_000_000_000)
            }
            let mine = spans.filter { $0["traceId"] == trace }
            let server = try #require(mine.first { $0.kind == 2 })
            let client = try #require(mine.first { $0.kind == 3 })
            #expect(server["name"] == "GET /api" && client["name"] == "GET")
            #expect(server["parentSpanId"] == "b7ad6b7169203331" && client["parentSpanId"] == server["spanId"])
            #expect(server.members["flags"] as? Int == 0x301 && client.members["flags"] as? Int == 0x101)
            #expect(server.code == nil && client.code == nil)
            // The backend has been asked by the span that asked it.
            let asked = try #require(ParentField(backend.requests.first?.value("traceparent")))
            #expect(asked.trace == trace && asked.parent == client["spanId"] && asked.flags == "01")
            let expected = [
                "http.request.method": "GET", "url.path": "/api/a", "url.scheme": "http", "http.route": "/api",
                "server.address": "test", "client.address": "127.0.0.1", "network.peer.address": "127.0.0.1",
                "network.protocol.version": "1.1", "user_agent.original": "curl \"x\"",
                "http.response.status_code": "200", "sluice.service": "main", "sluice.request_id": "seven",
                "sluice.outcome": "proxied",
            ]
            #expect(server.attributes == expected)
            #expect(
                client.attributes == [
                    "http.request.method": "GET", "server.address": "127.0.0.1",
                    "server.port": "\(backend.address.port)", "network.protocol.version": "1.1",
                    "http.response.status_code": "200", "sluice.service": "main",
                ])
            let others = spans.filter { $0["traceId"] != trace }
            let gone = try #require(others.first { $0.kind == 2 })
            #expect(gone["parentSpanId"].isEmpty && gone.members["flags"] as? Int == 0x101)
            // A server is not to blame for it, whoever asks is.
            #expect(gone.code == nil && gone.attributes["error.type"] == nil)
            let asker = try #require(others.first { $0.kind == 3 })
            #expect(asker.code == 2 && asker.attributes["error.type"] == "404")
            let request = try #require(collector.backend.requests.first)
            #expect(request.value("Authorization") == "Bearer s3cret" && request.values("User-Agent") == ["mine"])
            #expect(try node.metrics().value("sluice_trace_spans_exported_total") == 4)
            #expect(!node.log.contains("s3cret"))
        }
    }

    @Test("failures say what failed, and what the gateway answers by itself asks nobody")
    func failures() throws {
        try Scene.play { scene in
            let dead = try scene.backend()
            dead.stop()
            let collector = try Collector(scene)
            let node = try scene.node(
                File([File.Service(path: "/dead", urls: [dead.url], more: "retries: 0")]), Self.tracing(collector))
            #expect(try node.ask("GET /dead HTTP/1.1").status == 502)
            #expect(try node.ask("FROB /none HTTP/1.1").status == 404)
            #expect(try node.ask("nonsense").status == 400)
            #expect(try node.terminate() == 0)
            let spans = try collector.spans()
            #expect(spans.count == 3)
            let failed = try #require(spans.first { $0.kind == 2 && $0.attributes["http.route"] == "/dead" })
            #expect(failed.code == 2 && failed.attributes["error.type"] == "502")
            let asked = try #require(spans.first { $0.kind == 3 })
            #expect(asked.code == 2 && asked.attributes["error.type"] == "backend_failed")
            #expect(asked.attributes["http.response.status_code"] == nil)
            let unknown = try #require(spans.first { $0.attributes["url.path"] == "/none" })
            #expect(unknown["name"] == "HTTP" && unknown.attributes["http.request.method"] == "_OTHER")
            #expect(unknown.attributes["http.request.method_original"] == "FROB")
            #expect(failed.attributes["http.request.method_original"] == nil)
            #expect(unknown.code == nil && unknown.attributes["http.route"] == nil)
        }
    }

    @Test("whom a client asked is a host, and a port where it names one")
    func authority() throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            let collector = try Collector(scene)
            let node = try scene.node(File([backend]), Self.tracing(collector))
            let rows =
                [
                    ("shop.example:8080", "shop.example", "8080"), ("shop.example", "shop.example", nil),
                    ("shop.example:", "shop.example", nil), ("192.0.2.10", "192.0.2.10", nil),
                    ("[::1]:81", "::1", "81"),
                    ("[2001:db8::2]", "2001:db8::2", nil), ("8080", "8080", nil),
                ] as [(String, String, String?)]
            let wire = try node.connect()
            for (authority, _, _) in rows {
                try wire.send("GET / HTTP/1.1\r\nHost: \(authority)\r\n\r\n")
                #expect(try wire.readResponse().status == 200)
            }
            #expect(try node.terminate() == 0)
            let spans = try collector.spans().filter { $0.kind == 2 }
            #expect(spans.map { $0.attributes["server.address"] } == rows.map(\.1))
            #expect(spans.map { $0.attributes["server.port"] } == rows.map(\.2))
        }
    }

    @Test("what a client writes stays a text")
    func hostile() throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            let collector = try Collector(scene)
            let node = try scene.node(File([backend]), Self.tracing(collector))
            let long = String(repeating: "p", count: 5_000)
            for (target, agent) in [
                ("/\"}]},{", "\"},{\"x\":\"\\é\u{7}".replacing("\u{7}", with: "")), ("/\(long)", long),
            ] {
                #expect(try node.ask("GET \(target) HTTP/1.1", fields: "User-Agent: \(agent)\r\n").status == 200)
            }
            #expect(try node.terminate() == 0)
            let spans = try collector.spans().filter { $0.kind == 2 }
            #expect(spans.count == 2)
            #expect(spans[0].attributes["url.path"] == "/\"}]},{")
            #expect(spans[1].attributes["url.path"]?.count == 1_024)
            #expect(spans[1].attributes["user_agent.original"]?.count == 1_024)
        }
    }

    @Test("a busy collector is asked again when it says, and gets the same spans", arguments: [429, 502, 503, 504])
    func retried(status: Int) throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            let collector = try Collector(scene) {
                $0 < 2 ? ("\(status) Later", $0 == 0 ? "Retry-After: 0\r\n" : "", "") : ("200 OK", "", "{}")
            }
            let node = try scene.node(File([backend]), Self.tracing(collector))
            _ = try node.ask()
            try eventually("it is taken") { try node.metrics().value("sluice_trace_spans_exported_total") == 2 }
            let bodies = collector.backend.requests.map(\.text)
            #expect(bodies.count == 3 && Set(bodies).count == 1)
            let metrics = try node.metrics()
            #expect(metrics.value("sluice_trace_export_failures_total") == 2)
            #expect(metrics.value("sluice_trace_spans_dropped_total") == 0)
            #expect(node.log.contains("spans cannot be exported") && node.log.contains("status \(status)"))
            try eventually("it is told") { node.log.contains("spans are exported again") }
        }
    }

    @Test("what a collector does not want is dropped and counted")
    func refused() throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            let collector = try Collector(scene) {
                $0 == 0
                    ? ("400 Bad Request", "", "no")
                    : ("200 OK", "", "{\"partialSuccess\": {\"rejectedSpans\": \"1\", \"errorMessage\": \"no\"}}")
            }
            let node = try scene.node(File([backend]), Self.tracing(collector))
            func dropped() throws -> Double? {
                try node.metrics().value("sluice_trace_spans_dropped_total", ["reason": "refused"])
            }
            _ = try node.ask()
            try eventually("both are refused") { try dropped() == 2 }
            _ = try node.ask()
            try eventually("one is taken") { try node.metrics().value("sluice_trace_spans_exported_total") == 1 }
            #expect(try dropped() == 3)
            #expect(node.log.contains("spans are exported again") && node.log.contains("lost=3"))
        }
    }

    @Test("a collector that hangs or is gone harms nothing, and the queue has an end", arguments: [true, false])
    func gone(hangs: Bool) throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            let collector = try Collector(scene) { _ in nil }
            if !hangs { collector.backend.stop() }
            let node = try scene.node(
                File([backend]), Self.tracing(collector, "interval: 10ms, timeout: 200ms, queue: 10"))
            let wire = try node.connect()
            for _ in 0..<50 {
                try wire.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
                #expect(try wire.readResponse().status == 200)
            }
            try eventually("it is told") { node.log.contains("spans cannot be exported") }
            func dropped(_ reason: String) throws -> Double {
                try node.metrics().value("sluice_trace_spans_dropped_total", ["reason": reason]) ?? 0
            }
            try eventually("spans are dropped") {
                _ = try node.ask()
                return try dropped("queue_full") > 20
            }
            #expect(try node.metrics().value("sluice_trace_spans_exported_total") == 0)
            #expect(try node.terminate() == 0)
        }
    }

    @Test("what waits at the end, and at a reload, is sent")
    func flushed() throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            let (one, two) = (try Collector(scene), try Collector(scene))
            let file = File([backend])
            func text(_ collector: Collector) -> String {
                file.yaml + "tracing: {otlp: {endpoint: \"\(collector.endpoint)\", interval: 5m}}\n"
            }
            let node = try scene.node(file)
            try node.reload(text(one))
            _ = try node.ask()
            try node.reload(text(two))
            try eventually("the old collector has its spans") { try one.spans().count == 2 }
            _ = try node.ask()
            #expect(try node.terminate() == 0)
            #expect(try two.spans().count == 2)
        }
    }
}
