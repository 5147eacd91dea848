import Foundation
import Glibc
import Primitives
import TestSupport
import Testing

/// A real browser with one page, driven over its debugging protocol.
private final class Browser {
    static let path = "/usr/bin/chromium"

    private let profile: TemporaryDirectory
    private let process: ChildProcess
    private let wire: Wire
    private var lastID = 0
    /// What the page has complained of: exceptions, requests that failed, what its own policy forbids.
    private(set) var complaints: [String] = []

    init() throws {
        profile = try TemporaryDirectory()
        let process = try ChildProcess(
            Self.path,
            [
                "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                "--user-data-dir=\(profile.path)", "--remote-debugging-port=0", "about:blank",
            ])
        self.process = process
        // DevTools listening on ws://127.0.0.1:PORT/devtools/browser/ID
        var port: UInt16?
        try eventually("the browser listens") {
            let line = process.errors.split(separator: "\n").first { $0.contains("DevTools listening on ws://") }
            port = line?.split(separator: ":").dropFirst(2).first.flatMap { UInt16($0.prefix { $0.isNumber }) }
            return port != nil
        }
        let address = SocketAddress(ip: .v4Loopback, port: try #require(port))
        var page = ""
        try eventually("it has a page") {
            let list = try Wire.connect(to: address)
            try list.send("GET /json/list HTTP/1.1\r\nHost: \(address)\r\nConnection: close\r\n\r\n")
            let body = Data(try list.readResponse().body)
            let targets = try JSONSerialization.jsonObject(with: body) as? [[String: Any]] ?? []
            page = targets.first { $0["type"] as? String == "page" }?["id"] as? String ?? ""
            return !page.isEmpty
        }
        wire = try Wire.connect(to: address)
        try wire.send(
            "GET /devtools/page/\(page) HTTP/1.1\r\nHost: \(address)\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                + "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
        #expect(try wire.readHead()?.status == 101)
        for domain in ["Page", "Runtime", "Log"] { _ = try call("\(domain).enable") }
    }

    func end() throws {
        process.signal(SIGTERM)
        _ = try process.waitForExit()
    }

    func open(_ url: String) throws { _ = try call("Page.navigate", ["url": url]) }

    func resize(_ width: Int, _ height: Int, dark: Bool) throws {
        _ = try call(
            "Emulation.setDeviceMetricsOverride",
            ["width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600])
        let scheme = ["name": "prefers-color-scheme", "value": dark ? "dark" : "light"]
        _ = try call("Emulation.setEmulatedMedia", ["features": [scheme]])
    }

    /// The value of an expression on the page.
    func value(_ expression: String) throws -> Any? {
        let answer = try call("Runtime.evaluate", ["expression": expression, "returnByValue": true])
        return (answer["result"] as? [String: Any])?["value"]
    }

    private func call(_ method: String, _ parameters: [String: Any] = [:]) throws -> [String: Any] {
        lastID += 1
        try send(["id": lastID, "method": method, "params": parameters])
        while true {
            let message = try receive()
            if message["id"] as? Int == lastID { return message["result"] as? [String: Any] ?? [:] }
            if let event = message["method"] as? String, ["Runtime.exceptionThrown", "Log.entryAdded"].contains(event) {
                complaints.append("\(message["params"] ?? "")")
            }
        }
    }

    /// One frame of text (RFC 6455 §5.2); a mask of zeros leaves it as it is.
    private func send(_ message: [String: Any]) throws {
        let text = Array(try JSONSerialization.data(withJSONObject: message))
        let length = [UInt8(truncatingIfNeeded: text.count >> 8), UInt8(truncatingIfNeeded: text.count)]
        try wire.send([0x81, 0x80 | 126] + length + [0, 0, 0, 0] + text)
    }

    private func receive() throws -> [String: Any] {
        var text: [UInt8] = []
        while true {
            let head = try wire.read(2)
            var length = Int(head[1] & 0x7f)
            if length >= 126 { length = try wire.read(length == 126 ? 2 : 8).reduce(0) { $0 << 8 | Int($1) } }
            text += try wire.read(length)
            if head[0] & 0x80 != 0 { break }
        }
        return try JSONSerialization.jsonObject(with: Data(text)) as? [String: Any] ?? [:]
    }
}

@Suite("The dashboard in a real browser", .enabled(if: isInstalled(Browser.path)))
struct DashboardTests {
    @Test("it shows the cluster, fits a desk and a phone, and what it shows of a node that is gone looks like the past")
    func page() throws {
        try Scene.play { scene in
            let (_, backend, dead, standing) = try scene.halfDead("policies: [{name: few, limit: 3, window: 1h}]")
            var file = standing
            file.gateway = "heartbeat: 100ms"
            let nodes = try ["node-a", "node-b"].map { try scene.node(file, ["--node-id", $0]) }
            try LimitTests.reached(nodes)
            for _ in 0..<5 { _ = try nodes[0].ask() }
            let browser = try Browser()
            // Any node shows them all.
            let admin = try #require(nodes[1].admin)
            try browser.open("http://\(admin)/")
            func text() throws -> String { try browser.value("document.body.innerText") as? String ?? "" }
            let words = [
                "node-a", "node-b", "serving", backend.url, dead.url, "down", "few", "3 of 3", "ip:127.0.0.1",
                "joined the cluster", "/ in the cluster".replacing("/ ", with: "/s "),
            ]
            var missing: [String] = []
            try eventually("it shows all of them, not \(missing)") {
                let shown = try text()
                missing = words.filter { !shown.contains($0) }
                return missing.isEmpty
            }
            for (width, height, dark) in [(1_440, 900, true), (820, 1_100, false), (390, 844, true), (320, 640, false)]
            {
                try browser.resize(width, height, dark: dark)
                try eventually("it fits \(width)") {
                    try browser.value("document.documentElement.scrollWidth <= innerWidth") as? Bool == true
                }
            }
            #expect(browser.complaints.isEmpty)
            nodes[1].kill()
            try eventually("it says so") {
                let shown = try text()
                let state = try browser.value("document.getElementById('ready').innerText") as? String
                return shown.contains("This node has not answered since") && shown.contains("no answer")
                    && state != "serving"
            }
            try browser.end()
        }
    }
}
