// Pack `{{name}}`. What its commands take and give is written in wit/pack.wit; `relay pack build` makes pack.h from it.
#include "pack.h"

#include <stdlib.h>
#include <string.h>

// Appends to a text that has room for it; gives what was appended.
static size_t put(uint8_t *to, const void *text, size_t len) {
    memcpy(to, text, len);
    return len;
}

// Fills one of the two, and says by true or false which. Texts of the host's are ours, so that they can be given on.
bool exports_my_{{snake}}_{{snake}}_greet(exports_my_{{snake}}_{{snake}}_person_t *person,
                                          exports_my_{{snake}}_{{snake}}_greeting_t *greeting,
                                          exports_my_{{snake}}_{{snake}}_refusal_t *refusal) {
    if (person->name.len == 0) {
        refusal->tag = EXPORTS_MY_{{SNAKE}}_{{SNAKE}}_REFUSAL_NO_NAME;
        return false;
    }

    outhaul_host_system_facts_t facts;
    outhaul_host_system_system_error_t error;
    if (!outhaul_host_system_read(&facts, &error)) {
        if (error.tag == OUTHAUL_HOST_SYSTEM_SYSTEM_ERROR_DENIED) {
            refusal->tag = EXPORTS_MY_{{SNAKE}}_{{SNAKE}}_REFUSAL_DENIED;
            refusal->val.denied = error.val.denied;
        } else {
            refusal->tag = EXPORTS_MY_{{SNAKE}}_{{SNAKE}}_REFUSAL_FAILED;
            refusal->val.failed = error.val.failed;
        }
        return false;
    }
    greeting->uptime = facts.uptime;
    outhaul_host_system_facts_free(&facts);

    pack_string_t title = person->title.is_some ? person->title.val : (pack_string_t){0};
    uint8_t *text = malloc(sizeof "Hello,  !" + title.len + person->name.len);
    size_t len = put(text, "Hello, ", 7);
    if (title.len > 0) {
        len += put(text + len, title.ptr, title.len);
        len += put(text + len, " ", 1);
    }
    len += put(text + len, person->name.ptr, person->name.len);
    len += put(text + len, "!", 1);
    greeting->text = (pack_string_t){text, len};
    return true;
}
