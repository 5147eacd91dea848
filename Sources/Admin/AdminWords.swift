// What operators may change through the admin listener: their word about a backend. The gate has let the request in.

import Gateway
import Health
import Primitives

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
        let said = control.say(word, url: url, service: parameters["service"], by: parameters["by"] ?? "")
        guard !said.isEmpty else { return .problem(404, "No such backend here") }
        let services = said.map { "\"\($0)\"" }.joined(separator: ",")
        return SmallAnswer(body: Array("{\"services\":[\(services)],\"word\":\"\(word.rawValue)\"}\n".utf8))
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
