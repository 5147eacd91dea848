import Testing

@testable import Configuration

/// A file with one service; `gateway`, `service` and `rateLimit` add lines to its sections, already indented.
func file(gateway: String = "", service: String = "", rateLimit: String = "") -> String {
    var lines: [String] = []
    if !gateway.isEmpty { lines.append("gateway:\n\(gateway)") }
    lines.append("services:\n  - name: users\n    path: /users\n    instances: [http://localhost:8081]")
    if !service.isEmpty { lines.append(service) }
    if !rateLimit.isEmpty { lines.append("rateLimit:\n\(rateLimit)") }
    return lines.joined(separator: "\n")
}

func parse(
    _ text: String, _ overrides: [String] = [], environment: [String: String] = [:]
) throws(ConfigurationErrors) -> Configuration {
    try Configuration.parse(text, file: "f", overrides: overrides, environment: environment)
}

/// The errors as an operator sees them; empty where there are none.
func errors(_ text: String, _ overrides: [String] = [], environment: [String: String] = [:]) -> [String] {
    do throws(ConfigurationErrors) {
        _ = try parse(text, overrides, environment: environment)
        return []
    } catch {
        return error.errors.map(\.description)
    }
}

/// What a reader of one kind of value makes of a text.
func outcome<T>(_ body: () throws(Invalid) -> T) -> Result<T, Refusal> {
    do throws(Invalid) {
        return .success(try body())
    } catch {
        return .failure(Refusal(message: error.message))
    }
}

struct Refusal: Error, Equatable {
    let message: String
}

/// A text and the errors that it must give, one a line.
struct Row: Sendable, CustomTestStringConvertible {
    let text: String
    let expected: String

    init(_ text: String, _ expected: String) {
        self.text = text
        self.expected = expected
    }

    var testDescription: String { expected }
}
