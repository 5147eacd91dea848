// What operators may change through the admin listener: their word about a backend. The gate has let the request in.

import Gateway
import Health
import Primitives

/// What is said of a backend that nobody has.
package struct UnknownBackend: CustomStringConvertible {
    var service: String?
    var known: [(service: String, urls: [String])]

    /// Beyond it a list is of no help.
    private static let shown = 12

    package init(service: String?, known: [(service: String, urls: [String])]) {
        self.service = service
        self.known = known
    }

    package var description: String {
        if let service, !known.contains(where: { $0.service == service }) {
            return "No service \(service) here; there are \(Self.list(known.map(\.service)))"
        }
        var urls: [String] = []
        for row in known where service == nil || row.service == service {
            urls += row.urls.filter { !urls.contains($0) }
        }
        return "No such backend \(service.map { "of \($0)" } ?? "here"); there are \(Self.list(urls))"
    }

    private static func list(_ names: [String]) -> String {
        let more = names.count - shown
        return names.prefix(shown).joined(separator: ", ") + (more > 0 ? " and \(more) more" : "")
    }
}

enum AdminWords {
    static let prefix = "/api/backends/"

    /// `POST /api/backends/WORD?url=URL[&service=NAME][&by=WHO]`, where `undrain` is `auto`.
    static func answer(_ request: SmallRequest, _ control: Control) -> SmallAnswer {
        guard request.method == "POST" else { return .problem(405, "POST says something of a backend") }
        let text = String(request.path.dropFirst(prefix.count))
        guard let word = text == "undrain" ? .auto : OperatorWord.Word(rawValue: text) else {
            return .problem(404, "No such word: try drain, undrain, down, up or auto")
        }
        let parameters = query(request.query)
        guard let url = parameters["url"], !url.isEmpty else { return .problem(400, "Name the backend: ?url=URL") }
        let service = parameters["service"]
        let said = control.say(word, url: url, service: service, by: parameters["by"] ?? "")
        guard let first = said.first else {
            let title = UnknownBackend(service: service, known: control.backendURLs).description
            return AdminServer.encode(Problem(title: title, status: 404), status: 404, type: "application/problem+json")
        }
        return AdminServer.encode(Said(services: said.map(\.service), url: first.url, word: word.rawValue))
    }

    private struct Said: Encodable {
        var services: [String]
        /// As the first of them writes it.
        var url: String
        var word: String
    }

    private struct Problem: Encodable {
        var title: String
        var status: Int
    }

    static func query(_ text: String) -> [String: String] {
        var parameters: [String: String] = [:]
        for pair in text.split(separator: "&") {
            let parts = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard parts.count == 2 else { continue }
            parameters[String(parts[0])] = decoded(parts[1])
        }
        return parameters
    }

    /// RFC 3986 §2.1. What is no escape stays as it is.
    private static func decoded(_ text: Substring) -> String {
        var bytes: [UInt8] = []
        let source = Array(text.utf8)
        var i = 0
        while i < source.count {
            if source[i] == UInt8(ascii: "%"), i + 2 < source.count, let high = hexValue(source[i + 1]),
                let low = hexValue(source[i + 2])
            {
                bytes.append(high << 4 | low)
                i += 3
            } else {
                bytes.append(source[i])
                i += 1
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}
