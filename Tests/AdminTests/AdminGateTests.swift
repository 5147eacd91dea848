import Primitives
import Testing

@testable import Admin

@Suite("Who may ask the admin listener what")
struct AdminGateTests {
    private static let token = "a-token-of-some-length"

    private func status(
        _ method: String, _ path: String, host: String = "127.0.0.1:9901", authorization: String = "",
        origin: String = "", site: String = "", isLoopback: Bool = true, token: String? = token
    ) -> Int? {
        let request = SmallRequest(
            method: method, path: path, query: "", authorization: authorization, host: host, origin: origin,
            fetchSite: site)
        return AdminGate(token: token, isLoopback: isLoopback).refusal(of: request)?.status
    }

    @Test("on this machine everybody may read, and nobody writes without the token")
    func loopback() {
        #expect(status("GET", "/api/backends") == nil)
        #expect(status("HEAD", "/metrics") == nil)
        #expect(status("POST", "/api/backends/drain") == 401)
        #expect(status("DELETE", "/anything") == 401)
        #expect(status("POST", "/api/backends/drain", authorization: "Bearer \(Self.token)") == nil)
        #expect(status("POST", "/api/backends/drain", authorization: "bearer \(Self.token)") == nil)
        #expect(status("POST", "/api/backends/drain", authorization: "Bearer \(Self.token)x") == 401)
        #expect(status("POST", "/api/backends/drain", authorization: Self.token) == 401)
        #expect(status("POST", "/api/backends/drain", token: nil) == 403)
        #expect(status("POST", "/api/backends/drain", authorization: "Bearer ", token: "") == 401)
    }

    @Test("beyond this machine reading wants the token too, but for what balancers ask")
    func elsewhere() {
        #expect(status("GET", "/", isLoopback: false) == 401)
        #expect(status("GET", "/metrics", isLoopback: false) == 401)
        #expect(status("GET", "/healthz", host: "gateway", isLoopback: false) == nil)
        #expect(status("GET", "/readyz", host: "gateway", isLoopback: false) == nil)
        #expect(status("POST", "/readyz", isLoopback: false) == 401)
        // Any name, and the token as the password: what a browser's dialogue sends.
        let basic = "Basic bWU6YS10b2tlbi1vZi1zb21lLWxlbmd0aA=="
        #expect(status("GET", "/", host: "gateway:9901", authorization: basic, isLoopback: false) == nil)
        #expect(status("GET", "/", authorization: "Basic bWU6d3Jvbmc=", isLoopback: false) == 401)
        #expect(status("GET", "/", authorization: "Basic %%%", isLoopback: false) == 401)
    }

    @Test(
        "a page whose name was made to lead here reads nothing (DNS rebinding)",
        arguments: ["evil.example", "evil.example:9901", "localhost.evil.example", "127.0.0.1.evil.example", "[::1"])
    func rebinding(host: String) {
        #expect(status("GET", "/api/overview", host: host) == 421)
        #expect(status("POST", "/api/backends/drain", host: host) == 421)
        #expect(status("GET", "/metrics", host: host, authorization: "Bearer \(Self.token)") == nil)
    }

    @Test(
        "addresses and localhost are this machine's names",
        arguments: ["127.0.0.1", "localhost:9901", "[::1]:9901", "10.0.0.1:1"])
    func ownNames(host: String) { #expect(status("GET", "/api/overview", host: host) == nil) }

    @Test("a page of another origin writes nothing, with a password that its browser keeps or without")
    func crossSite() {
        let bearer = "Bearer \(Self.token)"
        #expect(status("POST", "/x", authorization: bearer, origin: "https://evil.example") == 403)
        #expect(status("POST", "/x", authorization: bearer, origin: "null") == 403)
        #expect(status("POST", "/x", authorization: bearer, origin: "http://127.0.0.1:9901") == nil)
        #expect(status("POST", "/x", authorization: bearer, site: "cross-site") == 403)
        #expect(status("POST", "/x", authorization: bearer, site: "same-site") == 403)
        #expect(status("POST", "/x", authorization: bearer, site: "same-origin") == nil)
        #expect(status("POST", "/x", authorization: bearer, site: "none") == nil)
    }
}

@Suite("Prometheus's text form")
struct MetricsTextTests {
    @Test("labels and help cannot end their line")
    func escaping() {
        var text = MetricsText()
        text.write(Metric(name: "a_total", kind: .counter, help: "x\ny\\", labels: ["b"])) { $0.add(3, "q\"\\\n") }
        #expect(text.text == "# HELP a_total x\\ny\\\\\n# TYPE a_total counter\na_total{b=\"q\\\"\\\\\\n\"} 3\n")
    }

    @Test(
        "seconds are exact",
        arguments: [
            (TimeSpan.zero, "0"), (.seconds(3), "3"), (.milliseconds(1_500), "1.5"), (.nanoseconds(-1), "-0.000000001"),
            (.microseconds(2_000_010), "2.00001"),
        ])
    func seconds(span: TimeSpan, text: String) { #expect(MetricsText.seconds(span) == text) }

    @Test("what has no samples is not announced")
    func empty() {
        var text = MetricsText()
        text.write(Metric(name: "a", kind: .gauge, help: "b")) { _ in }
        #expect(text.text.isEmpty)
    }
}
