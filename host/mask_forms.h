/* mask_forms.h: the forms in which a secret may turn up in a text. For mask.c alone. */
#ifndef MASK_FORMS_H
#define MASK_FORMS_H

#include <stdbool.h>
#include <stddef.h>

/* MASK_WRAPPED forms are base64 and hex, which programs break into lines. */
enum mask_kind { MASK_PLAIN, MASK_WRAPPED, MASK_KINDS };

/* Calls add for each form; one may come twice. false: add said so, or out of memory. */
bool mask_forms(const unsigned char *data, size_t len,
    bool (*add)(void *arg, enum mask_kind kind, const unsigned char *form, size_t len),
    void *arg);

#endif
