import Foundation
import Primitives
import Testing
import Transforms

@testable import Configuration

@Suite("Transforms in the file")
struct TransformTests {
    private static func section(_ text: String) -> String { file(service: "    transforms: {\(text)}") }

    private static func read(_ text: String) throws -> Configuration.Transforms? {
        try parse(section(text)).services[0].transforms
    }

    @Test("the example file loads, and says what it says")
    func example() throws {
        let path = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().appendingPathComponent("configs/transforms.yaml").path
        let transforms = try #require(try Configuration.load(path: path, environment: [:]).services[0].transforms)
        #expect(transforms.request.set.map(\.name) == ["X-Client", "X-Forwarded-Prefix"])
        #expect(transforms.request.set[0].value == (try Template("{client}")))
        #expect(transforms.request.remove == ["X-Debug"])
        #expect(transforms.response.remove == ["Server", "X-Powered-By"])
        #expect(transforms.rewrites.map(\.match) == [.prefix("/v1"), .pattern(try PathPattern("/users/([0-9]+)"))])
        #expect(transforms.redirects.map(\.status) == [301, 308])
        let cors = try #require(transforms.cors)
        #expect(cors.origins.count == 2 && cors.credentials && cors.maxAge == .seconds(3_600))
        #expect(cors.methods == ["GET", "HEAD", "POST", "PUT", "DELETE"])
        #expect(transforms.compression?.minBytes == 1_024)
        #expect(transforms.maintenance == nil)
    }

    @Test("a service without the section has nothing to look at")
    func none() throws { #expect(try parse(file()).services[0].transforms == nil) }

    @Test("a page of maintenance is read from its file, with the type that its name says")
    func maintenanceFile() throws {
        let path = NSTemporaryDirectory() + "sluice-maintenance-\(getpid()).html"
        try Data("<p>Soon.</p>".utf8).write(to: URL(fileURLWithPath: path))
        defer { try? FileManager.default.removeItem(atPath: path) }
        let page = try #require(
            try Self.read("maintenance: {file: \(path), allow: [10.0.0.0/8], retryAfter: 90s}")?.maintenance)
        #expect(page.body == .init(bytes: Array("<p>Soon.</p>".utf8), contentType: "text/html; charset=utf-8"))
        #expect(page.status == 503 && page.retryAfter == .seconds(90) && page.allow.count == 1)
        #expect(try Self.read("maintenance: {status: 500}")?.maintenance?.body == nil)
    }

    static let mistakes: [(String, String)] = [
        (
            "request: {set: {Content-Length: 3}}",
            "`Content-Length` frames messages or is the gateway's own; it can not be changed"
        ),
        (
            "request: {remove: [transfer_encoding]}",
            "`transfer_encoding` frames messages or is the gateway's own; it can not be changed"
        ),
        (
            "rewrite: [{prefix: /v1, to: \"/{user}\"}]",
            "`/{user}`: {user} can stand in headers alone; remove it here"
        ),
        (
            "redirects: [{prefix: /v1, to: \"/{requestID}\"}]",
            "`/{requestID}`: {requestID} can stand in headers alone; remove it here"
        ),
        ("request: {set: {Host: a}}", "`Host` is hostHeader's to choose; remove it here"),
        ("request: {set: {\"X A\": a}}", "`X A` is not a token; use letters, digits and !#$%&'*+-.^_`|~"),
        ("request: {set: {X-A: \"a\\r\\nB: c\"}}", "has a control character; a header is one line"),
        ("request: {set: {X-A: \"{user\"}}", "`{user`: a `{` without its `}`; write {{ for the sign"),
        ("request: {set: {X-A: a, x-a: b}}", "`x-a` is there already in another case; write it once"),
        (
            "response: {set: {Sec-WebSocket-Accept: a}}",
            "`Sec-WebSocket-Accept` is the handshake's of a WebSocket; remove it here"
        ),
        ("response: {add: {Connection: close}}", "`Connection` frames messages or is the gateway's own"),
        ("rewrite: [{prefix: /a, to: b}]", "`b` does not start with a slash; write one such as /new"),
        ("rewrite: [{prefix: /a, to: \"//b\"}]", "`//b` begins with two slashes, which name a host"),
        ("rewrite: [{prefix: /a, to: \"/b?c\"}]", "`/b?c` has a query; a path is rewritten, and the query stays"),
        ("rewrite: [{prefix: /a, to: \"/b/../c\"}]", "`/b/../c` has a segment `.` or `..`, or a broken escape"),
        ("rewrite: [{prefix: /a, to: \"/b/.{rest}\"}]", "has a segment `.` or `..`"),
        ("rewrite: [{pattern: \"/(.*)\", to: \"/{1}/%2E%2e;x\"}]", "has a segment `.` or `..`"),
        ("rewrite: [{prefix: /a, to: \"/b%zz{rest}\"}]", "or a broken escape; write the path that is meant"),
        ("rewrite: [{prefix: /a, pattern: /b, to: /c}]", "a rule has a prefix or a pattern; remove one"),
        ("rewrite: [{to: /c}]", "missing; write one such as /old, or a pattern"),
        ("rewrite: [{pattern: \"/(a\", to: /c}]", "`/(a` is no pattern: a `(` without its `)`"),
        ("rewrite: [{pattern: \"/(a)\", to: \"/{2}\"}]", "`/{2}`: {2} is no group: the pattern has 1"),
        (
            "redirects: [{prefix: /a, to: \"{rest}\"}]",
            "`{rest}` does not begin with / or with http:// or https:// and a host"
        ),
        ("redirects: [{prefix: /a, to: \"ftp://b/\"}]", "does not begin with / or with http:// or https:// and a host"),
        (
            "redirects: [{prefix: /a, to: \"https:///b\"}]",
            "does not begin with / or with http:// or https:// and a host"
        ),
        (
            "redirects: [{prefix: /a, to: \"https://{rest}\"}]",
            "does not begin with / or with http:// or https:// and a host"
        ),
        (
            "redirects: [{pattern: \"/(.*)\", to: \"https://a.example{1}\"}]",
            "`https://a.example{1}`: a client would choose the host; write a slash before what the path gives"
        ),
        ("redirects: [{prefix: /a, to: /b, status: 304}]", "`304` is no redirect; write 301, 302, 303, 307 or 308"),
        ("redirects: [{prefix: /a, to: \"/b c\"}]", "has a character that no address has; write it as %20 or the like"),
        ("cors: {}", "missing; write a list such as [https://app.example.com]"),
        (
            "cors: {origins: [a.example]}",
            "`a.example` is no origin; write a scheme and a host such as https://app.example.com"
        ),
        (
            "cors: {origins: [\"*\"], credentials: true}",
            "any origin, with credentials; list the origins that may act for their users"
        ),
        (
            "cors: {origins: [\"https://a\"], credentials: true, headers: [\"*\"]}",
            "`*` means nothing with credentials; write the names"
        ),
        (
            "cors: {origins: [\"*\"]}, response: {set: {Access-Control-Allow-Origin: \"*\"}}",
            "`Access-Control-Allow-Origin` is set by cors; remove one of the two"
        ),
        ("compression: {level: 10}", "`10` is out of range; write a number in 1...9"),
        ("compression: {types: [json]}", "`json` is no media type; write one such as application/json or text/*"),
        ("maintenance: {text: a, file: /nonexistent}", "No such file"),
        ("maintenance: {status: 200}", "`200` is out of range; write a number in 400...599"),
        ("compresion: true", "unknown key (did you mean services[0].transforms.compression?)"),
    ]

    @Test("each mistake has its place and its remedy", arguments: mistakes)
    func errors(text: String, message: String) {
        do throws(ConfigurationErrors) {
            _ = try parse(Self.section(text))
            Issue.record("\(text) is taken")
        } catch {
            let shown = "\(error)"
            #expect(shown.lowercased().contains(message.lowercased()), "\(shown)")
            #expect(shown.hasPrefix("f:5:"), "\(shown)")
            #expect(shown.contains("services[0].transforms"), "\(shown)")
        }
    }

    @Test(
        "a path that some requests make a good one is taken",
        arguments: ["/b{rest}..", "/.b{rest}", "/b/...", "/b%2fc", "/%4{1}", "/..{1}"])
    func rewrites(to: String) throws {
        let rule = to.contains("{1}") ? "pattern: \"/(.*)\"" : "prefix: /a"
        #expect(try Self.read("rewrite: [{\(rule), to: \"\(to)\"}]")?.rewrites.count == 1)
    }

    @Test(
        "what leads to a host of the file's is taken",
        arguments: [
            "https://{host}{path}{query}", "https://{hostname}:8443{rest}", "https://www.{host}/x",
            "https://a.example{rest}",
            "https://a.example/{rest}", "/b{rest}", "http://a.example?x={path}",
        ])
    func redirects(to: String) throws {
        #expect(try Self.read("redirects: [{prefix: /a, to: \"\(to)\"}]")?.redirects.count == 1)
    }
}
