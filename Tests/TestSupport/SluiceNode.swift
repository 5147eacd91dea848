// A node under test: the real binary, started with a file, stopped with the object.

import Glibc
package import Primitives

package final class SluiceNode {
    package let process: ChildProcess
    private let directory: TemporaryDirectory
    /// The path of its configuration.
    package let file: String
    package private(set) var address = SocketAddress(ip: .v4Loopback, port: 0)
    package private(set) var admin: SocketAddress?

    /// Starts a node and waits until it serves.
    ///
    /// - Parameters:
    ///   - arguments: more options of `sluice run`.
    ///   - place: what is put before the program, so that it runs elsewhere.
    ///   - program: another path of it, where it may be replaced.
    package init(
        _ yaml: String, _ arguments: [String] = [], in place: [String] = [], program: String? = nil,
        environment: [String: String] = [:]
    ) throws {
        directory = try TemporaryDirectory()
        file = try directory.write(yaml, to: "gateway.yaml")
        let command = place + [try program ?? Self.binary(), "run", "--config", file] + arguments
        // What the node leaves for its own user goes with it.
        let own = ["XDG_RUNTIME_DIR": directory.path].merging(environment) { $1 }
        process = try ChildProcess(command[0], Array(command.dropFirst()), environment: own)
        try eventually("the node serves") {
            if let code = process.exit { throw ProcessError("the node ended with \(code): \(process.errors)") }
            return Self.line("serving", of: process.errors) != nil
        }
        guard let found = Self.addresses(process.errors) else {
            throw ProcessError("the node does not say where it listens: \(process.errors)")
        }
        (address, admin) = found
    }

    /// Where a node listens, by its log.
    package static func addresses(_ log: String) -> (address: SocketAddress, admin: SocketAddress?)? {
        guard let line = line("starting", of: log), let address = field("address", line).flatMap(Self.address) else {
            return nil
        }
        return (address, field("admin", line).flatMap(Self.address))
    }

    /// The log's line about an event, in either format.
    private static func line(_ event: String, of log: String) -> Substring? {
        log.split(separator: "\n").first {
            $0.contains(" \(event) ") || $0.contains("\"message\":\"\(event)\"")
        }
    }

    private static func field(_ name: String, _ line: Substring) -> Substring? {
        for (opening, end) in [(" \(name)=", Character(" ")), ("\"\(name)\":\"", "\"")] {
            guard let start = line.firstRange(of: opening)?.upperBound else { continue }
            return line[start...].prefix { $0 != end }
        }
        return nil
    }

    private static func address(_ text: Substring) -> SocketAddress? {
        guard let colon = text.lastIndex(of: ":"), let port = UInt16(text[text.index(after: colon)...]) else {
            return nil
        }
        let host = text[..<colon].filter { $0 != "[" && $0 != "]" }
        return IPAddress(host).map { SocketAddress(ip: $0, port: port) }
    }

    /// The binary beside the test bundle, or in the build folder of this source tree.
    package static func binary(sourceFile: String = #filePath) throws -> String {
        var candidates: [String] = []
        var target = [UInt8](repeating: 0, count: 4_096)
        let n = unsafe readlink("/proc/self/exe", &target, target.count)
        if n > 0 { candidates.append(String(decoding: target[..<n], as: UTF8.self)) }
        candidates += CommandLine.arguments.filter { $0.contains(".xctest") }
        candidates = candidates.map { folder(of: $0) + "/sluice" }
        let root = folder(of: folder(of: folder(of: sourceFile)))
        candidates.append("\(root)/.build/debug/sluice")
        for candidate in candidates where unsafe access(candidate, X_OK) == 0 { return candidate }
        throw ProcessError("no binary at \(candidates.joined(separator: ", ")): build the product sluice")
    }

    private static func folder(of path: String) -> String {
        String(path[..<(path.lastIndex(of: "/") ?? path.startIndex)])
    }

    package var log: String { process.errors }
    /// What it wrote to standard output: the access log, where that is on.
    package var output: String { process.output }

    /// A connection to it.
    package func connect(from source: IPAddress? = nil, receiveBuffer: Int32? = nil) throws -> Wire {
        try Wire.connect(to: address, from: source, receiveBuffer: receiveBuffer)
    }

    /// One request on a connection of its own. `head` is the request line and all fields but Host and Connection.
    package func ask(
        _ line: String = "GET / HTTP/1.1", fields: String = "", body: String = "", from source: IPAddress? = nil
    ) throws -> WireMessage {
        let wire = try connect(from: source)
        try wire.send("\(line)\r\nHost: test\r\nConnection: close\r\n\(fields)\r\n\(body)")
        return try wire.readResponse(to: String(line.prefix { $0 != " " }))
    }

    /// Where it leaves what is for its own user only.
    package var runtimeDirectory: String { directory.path }

    /// Who asks the admin listener shows this, where it is set.
    package var token: String?

    /// Asks the admin listener.
    package func admin(_ path: String, method: String = "GET", fields: String = "") throws -> WireMessage {
        let shown = token.map { "Authorization: Bearer \($0)\r\n" } ?? ""
        return try askAdmin("\(method) \(path) HTTP/1.1\r\nHost: ADMIN\r\nConnection: close\r\n\(shown)\(fields)\r\n")
    }

    /// The same with a whole request, where `ADMIN` stands for the listener's address.
    package func askAdmin(_ request: String) throws -> WireMessage {
        guard let admin else { throw ProcessError("the node has no admin listener") }
        let wire = try Wire.connect(to: admin)
        try wire.send(request.replacing("ADMIN", with: "\(admin)"))
        return try wire.readResponse(to: String(request.prefix { $0 != " " }))
    }

    /// Puts another configuration in the place of its file, as an editor does, by renaming.
    package func write(_ yaml: String) throws {
        let new = try directory.write(yaml, to: "gateway.yaml.new")
        guard unsafe rename(new, file) == 0 else { throw ProcessError("rename: errno \(errno)") }
    }

    /// Lets it read another configuration, and waits until it has; returns what `/api/config` says then.
    @discardableResult
    package func reload(_ yaml: String) throws -> String {
        try write(yaml)
        let before = answered(try admin("/api/config").text)
        process.signal(SIGHUP)
        var status = ""
        try eventually("the file is read") {
            status = try admin("/api/config").text
            return answered(status) > before
        }
        return status
    }

    private func answered(_ status: String) -> Int {
        guard let start = status.firstRange(of: "\"answered\":")?.upperBound else { return -1 }
        return Int(status[start...].prefix { $0.isNumber }) ?? -1
    }

    /// A number of `GET /api/node`.
    package func number(_ name: String) throws -> Int {
        let text = try admin("/api/node").text
        guard let start = text.firstRange(of: "\"\(name)\":")?.upperBound,
            let value = Int(text[start...].prefix { $0.isNumber })
        else { throw ProcessError("no \(name) in \(text)") }
        return value
    }

    /// Asks for an orderly end; returns its exit code.
    package func terminate() throws -> Int32 {
        process.signal(SIGTERM)
        return try process.waitForExit()
    }

    package func kill() { process.kill() }
}

/// Runs the binary to its end.
package func runSluice(
    _ arguments: [String], environment: [String: String] = [:]
) throws -> (exit: Int32, output: String, errors: String) {
    let process = try ChildProcess(try SluiceNode.binary(), arguments, environment: environment)
    let code = try process.waitForExit()
    return (code, process.output, process.errors)
}
