//! `name=value`, as a person types parameters:
//!
//! - the value is read by the parameter's type: `count=3`, `facing=front`, `cwd=/srv`, `data=AAEC` (base64);
//! - a repeated name fills a list: `argv=ls argv=-l`;
//! - a value that starts with `[` or `{` is JSON: `env=[["LANG","C"]]`; a string is taken as it stands, since neither
//!   could be one;
//! - `name=@FILE` reads text, or bytes where the type is `list<u8>`; a text that starts with `@` goes in `--params`;
//! - `max-width` is `max_width`. Naming a parameter twice is bad usage.

use super::Value;
use super::check::{ParamError, Place, check_params, known, missing, one_char, one_of, short_enough};
use super::json::{bytes, from_json, named_float, narrow, plain_case};
use super::strict::parse_json;
use crate::error::{Code, Failure};
use crate::text::escape_control;
use crate::types::{Command, Field, Type};
use serde_json::Value as Json;
use std::io;

/// Reads the file of `name=@FILE`; the protocol itself opens nothing.
type ReadFile<'r> = &'r mut dyn FnMut(&str) -> io::Result<Vec<u8>>;

/// A call's parameters from `name=value` arguments, in the command's order; absent options stay out.
pub fn params_from_args(args: &[String], command: &Command, read_file: ReadFile<'_>) -> Result<Value, Failure> {
    params(None, args, command, read_file)
}

/// A call's parameters from JSON.
pub fn params_from_json(json: &Json, command: &Command) -> Result<Value, Failure> {
    params(Some(json), &[], command, &mut |_| Err(io::ErrorKind::Unsupported.into()))
}

/// A call's parameters from both: `--params` says some, `name=value` others.
pub fn params(json: Option<&Json>, args: &[String], command: &Command, read_file: ReadFile<'_>) -> Result<Value, Failure> {
    let said = Said::collect(json, args, command, read_file).map_err(|failure| with_signature(failure, command))?;
    let mut out = Vec::with_capacity(command.params.len());
    for (field, words) in command.params.iter().zip(said.0) {
        if let Some(value) = words.value(field).map_err(|error| with_signature(error.into(), command))? {
            out.push((field.name.clone(), value));
        }
    }
    let value = Value::Map(out);
    check_params(&value, command).map_err(|error| with_signature(error.into(), command))?;
    Ok(value)
}

fn with_signature(failure: Failure, command: &Command) -> Failure {
    match failure.hint {
        None => failure.hint(command.signature()),
        Some(_) => failure,
    }
}

/// What was said about one parameter.
enum Words {
    Nothing,
    Json(Json),
    Typed(Vec<Word>),
}

/// One value as typed.
enum Word {
    Text(String),
    /// Of a file, for a `list<u8>`.
    Bytes(Vec<u8>),
}

/// What was said, by the parameters' order.
struct Said(Vec<Words>);

impl Said {
    fn collect(json: Option<&Json>, args: &[String], command: &Command, read_file: ReadFile<'_>) -> Result<Self, Failure> {
        let mut said = Said(command.params.iter().map(|_| Words::Nothing).collect());
        match json {
            None | Some(Json::Null) => {}
            Some(Json::Object(map)) => map.iter().try_for_each(|(name, json)| said.json(name, json, command))?,
            Some(_) => return Err(Place::Root("params").error("an object was expected").into()),
        }
        args.iter().try_for_each(|arg| said.arg(arg, command, read_file))?;
        Ok(said)
    }

    fn json(&mut self, name: &str, json: &Json, command: &Command) -> Result<(), Failure> {
        let (at, field) = position(name, command)?;
        match std::mem::replace(&mut self.0[at], Words::Json(json.clone())) {
            Words::Nothing => Ok(()),
            _ => Err(twice(field)),
        }
    }

    fn arg(&mut self, arg: &str, command: &Command, read_file: ReadFile<'_>) -> Result<(), Failure> {
        let Some((name, text)) = arg.split_once('=') else {
            let sentence = format!("`{}` has no `=`; parameters are `name=value`", escape_control(arg));
            return Err(Failure::new(Code::BadUsage, sentence));
        };
        let (at, field) = position(name, command)?;
        let word = word(field, text, read_file)?;
        match &mut self.0[at] {
            Words::Nothing => self.0[at] = Words::Typed(vec![word]),
            Words::Typed(words) if repeats(&field.ty) => words.push(word),
            _ => return Err(twice(field)),
        }
        Ok(())
    }
}

fn position<'c>(name: &str, command: &'c Command) -> Result<(usize, &'c Field), Failure> {
    let snake = name.replace('-', "_");
    let at = command.params.iter().position(|field| field.name == snake);
    match at {
        Some(at) => Ok((at, &command.params[at])),
        None => {
            let error = known([&snake].into_iter(), &command.params, Place::Root("params"));
            Err(error.expect_err("the name was not found").into())
        }
    }
}

fn twice(field: &Field) -> Failure {
    Failure::new(Code::BadUsage, format!("parameter `{}` is named twice", field.name))
}

fn inner(ty: &Type) -> &Type {
    if let Type::Option(inner) = ty { inner } else { ty }
}

fn repeats(ty: &Type) -> bool {
    matches!(inner(ty), Type::List(_) | Type::Flags(_))
}

fn word(field: &Field, text: &str, read_file: ReadFile<'_>) -> Result<Word, Failure> {
    let Some(path) = text.strip_prefix('@') else { return Ok(Word::Text(text.to_owned())) };
    let failed = |error: &dyn std::fmt::Display| {
        let sentence = format!("`params.{}`: read `{}`: {error}", field.name, escape_control(path));
        Failure::new(Code::BadParams, sentence).hint("a text that itself starts with `@` goes in `--params`")
    };
    let content = read_file(path).map_err(|error| failed(&error))?;
    let one = inner(&field.ty);
    if *one == Type::Bytes || matches!(one, Type::List(item) if **item == Type::Bytes) {
        return Ok(Word::Bytes(content));
    }
    let text = String::from_utf8(content).map_err(|_| failed(&"it is not UTF-8 text"))?;
    // An editor ends a file with a newline; only for text could it be meant.
    let verbatim = match one {
        Type::String => true,
        Type::List(item) => **item == Type::String && !text.starts_with('['),
        _ => false,
    };
    Ok(Word::Text(if verbatim { text } else { text.trim_end_matches(['\n', '\r']).to_owned() }))
}

impl Words {
    fn value(self, field: &Field) -> Result<Option<Value>, ParamError> {
        let root = Place::Root("params");
        let place = Place::Key(&root, &field.name);
        match self {
            Words::Nothing if matches!(field.ty, Type::Option(_)) => Ok(None),
            Words::Nothing => Err(missing(field, root)),
            Words::Json(json) => from_json(&json, &field.ty, place).map(Some),
            Words::Typed(words) => typed(words, &field.ty, place).map(Some),
        }
    }
}

fn typed(words: Vec<Word>, ty: &Type, place: Place<'_>) -> Result<Value, ParamError> {
    match inner(ty) {
        Type::List(item) => fill(words, ty, item, place),
        Type::Flags(_) => fill(words, ty, &Type::String, place).and_then(|value| from_json(&value.to_json(None), ty, place)),
        _ => words.into_iter().next().map_or(Ok(Value::Null), |word| one(word, ty, place)),
    }
}

/// A list from its words: each is an item, or JSON of several.
fn fill(words: Vec<Word>, whole: &Type, item: &Type, place: Place<'_>) -> Result<Value, ParamError> {
    let mut out = Vec::with_capacity(words.len());
    for word in words {
        let at = Place::Index(&place, out.len());
        let json = match &word {
            Word::Text(text) if text.starts_with('[') => Some(read(text, place)?),
            _ => None,
        };
        let Some(json) = json else {
            out.push(one(word, item, at)?);
            continue;
        };
        match from_json(&json, whole, place) {
            Ok(Value::Array(items)) => out.extend(items),
            Ok(_) => {}
            // `env=["LANG","C"]`: one item that is itself a list.
            Err(error) => out.push(
                from_json(&json, item, at).map_err(|inside| if matches!(item, Type::List(_) | Type::Tuple(_)) { inside } else { error })?,
            ),
        }
    }
    Ok(Value::Array(out))
}

fn read(text: &str, place: Place<'_>) -> Result<Json, ParamError> {
    parse_json(text).map_err(|failure| place.error(failure.message))
}

fn one(word: Word, ty: &Type, place: Place<'_>) -> Result<Value, ParamError> {
    match word {
        Word::Bytes(content) => short_enough(content.len(), place).map(|()| Value::Bytes(content)),
        Word::Text(text) => from_text(text, ty, place),
    }
}

fn from_text(text: String, ty: &Type, place: Place<'_>) -> Result<Value, ParamError> {
    let wrong = || place.wanted(ty, format_args!("`{}`", escape_control(&text)));
    match ty {
        Type::String => Ok(Value::Text(text)),
        Type::Option(inner) if text == "null" && !matches!(**inner, Type::String) => Ok(Value::Null),
        Type::Option(inner) => from_text(text, inner, place),
        Type::Char => one_char(&text, place).map(|()| Value::Text(text)),
        _ if text.starts_with(['[', '{']) => from_json(&read(&text, place)?, ty, place),
        Type::Bool => text.parse().map(Value::Bool).map_err(|_| wrong()),
        // `007` is a number to people, to JSON it is not.
        Type::Int(_) => {
            let value = Value::Int(text.parse().map_err(|_| wrong())?);
            value.check_in(ty, place).map(|()| value)
        }
        Type::F32 | Type::F64 => match named_float(&text) {
            Some(value) => Ok(Value::Float(value)),
            None => narrow(text.parse::<f64>().ok().filter(|value| value.is_finite()).ok_or_else(wrong)?, ty, place),
        },
        Type::Bytes => bytes(&text, place),
        Type::Enum(names) => {
            let name = text.replace('-', "_");
            one_of(names, &name, place).map(|()| Value::Text(name))
        }
        Type::Variant(cases) => plain_case(cases, &text.replace('-', "_"), place),
        _ => Err(place.error(format!("{} was expected as JSON, found `{}`", ty.wanted(), escape_control(&text)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::tests::{field, optional, system_run};
    use crate::types::{Case, IntType};
    use proptest::prelude::*;
    use serde_json::json;

    fn no_file(path: &str) -> io::Result<Vec<u8>> {
        Err(io::Error::new(io::ErrorKind::NotFound, format!("no {path} here")))
    }

    fn read_with(args: &[&str], command: &Command) -> Result<Value, Failure> {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        params_from_args(&args, command, &mut |path| match path {
            "text" => Ok(b"two\nlines\n".to_vec()),
            "number" => Ok(b"7\n".to_vec()),
            "raw" => Ok(vec![0, 159, 255]),
            "json" => Ok(b"[\"a\", \"b\"]\n".to_vec()),
            other => no_file(other),
        })
    }

    fn command() -> Command {
        Command {
            name: "camera.snap".into(),
            params: vec![
                optional("device", Type::String),
                optional("facing", Type::Enum(vec!["front".into(), "far_left".into()])),
                optional("max_width", Type::Int(IntType::U32)),
                optional("gain", Type::F32),
                optional("raw", Type::Bytes),
                optional(
                    "mode",
                    Type::Variant(vec![
                        Case { name: "auto".into(), ty: None },
                        Case { name: "iso".into(), ty: Some(Type::Int(IntType::U16)) },
                    ]),
                ),
                optional("opts", Type::Flags(vec!["hdr".into(), "flash".into()])),
                optional("area", Type::Record(vec![field("x", Type::Bool)])),
            ],
            ..system_run()
        }
    }

    fn json_of(args: &[&str]) -> Json {
        read_with(args, &command()).unwrap().to_json(Some(&Type::Record(command().params)))
    }

    fn refused(args: &[&str], command: &Command) -> (Code, String) {
        let failure = read_with(args, command).unwrap_err();
        (failure.code, failure.message)
    }

    #[test]
    fn a_value_is_read_by_its_type() {
        assert_eq!(json_of(&[]), json!({}));
        assert_eq!(json_of(&["device=video0", "max-width=0640", "gain=0.1"]), json!({"device": "video0", "max_width": 640, "gain": 0.1}));
        assert_eq!(json_of(&["facing=far-left", "raw=AP8=", "mode=auto"]), json!({"facing": "far_left", "raw": "AP8=", "mode": "auto"}));
        assert_eq!(json_of(&["mode={\"iso\": 100}", "area={\"x\": true}"]), json!({"mode": {"iso": 100}, "area": {"x": true}}));
        assert_eq!(json_of(&["opts=hdr", "opts=flash", "gain=-Infinity"]), json!({"opts": ["hdr", "flash"], "gain": "-Infinity"}));
        assert_eq!(
            json_of(&["device={\"not\": \"json\" here", "max_width=null"]),
            json!({"device": "{\"not\": \"json\" here", "max_width": null})
        );
    }

    #[test]
    fn a_repeated_name_fills_a_list() {
        let run = |args: &[&str]| read_with(args, &system_run()).unwrap().to_json(None);
        assert_eq!(run(&["argv=ls", "argv=-l=x"]), json!({"argv": ["ls", "-l=x"]}));
        assert_eq!(run(&["argv=[\"ls\",\"-l\"]", "argv=@text"]), json!({"argv": ["ls", "-l", "two\nlines\n"]}));
        assert_eq!(run(&["argv=@json"]), json!({"argv": ["a", "b"]}));
        let env = json!({"argv": ["env"], "env": [["A", "1"], ["B", "2"]]});
        assert_eq!(run(&["argv=env", "env=[[\"A\",\"1\"],[\"B\",\"2\"]]"]), env);
        assert_eq!(run(&["argv=env", "env=[\"A\",\"1\"]", "env=[\"B\",\"2\"]"]), env);
    }

    #[test]
    fn a_file_gives_text_or_bytes() {
        assert_eq!(
            json_of(&["device=@text", "max_width=@number", "raw=@raw"]),
            json!({"device": "two\nlines\n", "max_width": 7, "raw": "AJ//"})
        );
        assert_eq!(refused(&["device=@raw"], &command()), (Code::BadParams, "`params.device`: read `raw`: it is not UTF-8 text".into()));
        assert_eq!(refused(&["device=@gone"], &command()), (Code::BadParams, "`params.device`: read `gone`: no gone here".into()));
    }

    #[test]
    fn mistakes_say_what_is_right() {
        let run = |args: &[&str]| refused(args, &system_run());
        assert_eq!(
            run(&["argv=x", "cdw=/"]),
            (Code::BadParams, "`params.cdw`: is unknown (did you mean `cwd`?); the names are `argv`, `cwd`, `env`".into())
        );
        assert_eq!(run(&["cwd=/"]), (Code::BadParams, "`params.argv`: is missing; list<string> was expected".into()));
        assert_eq!(run(&["argv=x", "cwd=/a", "cwd=/b"]), (Code::BadUsage, "parameter `cwd` is named twice".into()));
        assert_eq!(run(&["ls"]), (Code::BadUsage, "`ls` has no `=`; parameters are `name=value`".into()));
        assert_eq!(run(&["argv=[1]"]), (Code::BadParams, "`params.argv[0]`: string was expected, found 1".into()));
        assert_eq!(run(&["argv=x", "env=LANG"]).1, "`params.env[0]`: a list of 2 was expected as JSON, found `LANG`");
        let snap = |args: &[&str]| refused(args, &command()).1;
        assert_eq!(snap(&["max_width=wide"]), "`params.max_width`: u32 was expected, found `wide`");
        assert_eq!(snap(&["max_width=-1"]), "`params.max_width`: -1 is outside 0 to 4294967295 (u32)");
        assert_eq!(snap(&["gain=inf"]), "`params.gain`: f32 was expected, found `inf`");
        assert_eq!(snap(&["mode=iso"]), "`params.mode`: case `iso` has a value: {\"iso\": …}");
        let failure = read_with(&["x=1"], &system_run()).unwrap_err();
        assert!(failure.hint.unwrap().starts_with("system.run(argv: list<string>"));
    }

    #[test]
    fn json_and_arguments_add_up_but_do_not_repeat() {
        let both = |json: Json, args: &[&str]| {
            let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
            params(Some(&json), &args, &system_run(), &mut no_file)
        };
        let value = both(json!({"argv": ["ls"]}), &["cwd=/srv"]).unwrap();
        assert_eq!(value.to_json(None), json!({"argv": ["ls"], "cwd": "/srv"}));
        assert_eq!(both(json!({"argv": ["ls"]}), &["argv=-l"]).unwrap_err().code, Code::BadUsage);
        assert_eq!(params_from_json(&json!([]), &system_run()).unwrap_err().code, Code::BadParams);
        assert_eq!(params_from_json(&json!({"max-width": 3}), &command()).unwrap().get("max_width"), Some(&Value::Int(3)));
        assert_eq!(params_from_json(&json!({"max-width": 3, "max_width": 4}), &command()).unwrap_err().code, Code::BadUsage);
    }

    #[test]
    fn a_command_without_parameters_says_so() {
        let none = Command { params: vec![], ..system_run() };
        assert_eq!(refused(&["a=1"], &none).1, "`params.a`: is unknown; there are none");
    }

    proptest! {
        #[test]
        fn any_words_are_read_without_panic(
            words in proptest::collection::vec("(device|facing|max-width|gain|raw|mode|opts|area|x)=\\PC{0,12}", 0..4),
        ) {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            if let Ok(value) = read_with(&words, &command()) {
                prop_assert_eq!(check_params(&value, &command()), Ok(()));
            }
        }
    }
}
