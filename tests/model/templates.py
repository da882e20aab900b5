"""Chat templates of well-known families, written anew from what their documentation says of the form."""

from dataclasses import dataclass

from transformers import PreTrainedTokenizerFast

from tests.tiny import byte_tokenizer


@dataclass(frozen=True)
class Family:
    """How one family writes conversations."""

    template: str
    control: tuple[str, ...]
    """Its control tokens."""
    end: str
    """What ends an answer."""
    header: str
    """What stands before an answer."""
    system: bool = True
    """Whether it takes a system turn."""

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Every byte a token, and the control tokens; the tokenizer's own end of sequence is another one."""
        tokenizer = byte_tokenizer()
        added = [token for token in self.control if token not in ("<|start|>", "<|end|>")]
        tokenizer.add_special_tokens(
            {"eos_token": "<|endoftext|>", "bos_token": "<s>", "additional_special_tokens": added}
        )
        tokenizer.chat_template = self.template
        return tokenizer


_TURNS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
_ASK = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
_CHATML = ("<|im_start|>", "<|im_end|>")

FAMILIES = {
    "chatml": Family(_TURNS + _ASK, _CHATML, "<|im_end|>", "<|im_start|>assistant\n"),
    "smollm": Family(
        "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are helpful.<|im_end|>\n{% endif %}"
        + _TURNS
        + _ASK,
        _CHATML,
        "<|im_end|>",
        "<|im_start|>assistant\n",
    ),
    "qwen2": Family(
        "{%- if messages[0].role != 'system' -%}{{ '<|im_start|>system\nBe of use.<|im_end|>\n' }}{%- endif -%}"
        "{%- for m in messages -%}{{ '<|im_start|>' + m.role + '\n' }}"
        "{{ m.content + '<|im_end|>\n' }}{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}",
        _CHATML,
        "<|im_end|>",
        "<|im_start|>assistant\n",
    ),
    "qwen3": Family(
        "{%- if tools -%}{{ '<|im_start|>system\n' }}"
        "{%- if messages[0].role == 'system' -%}{{ messages[0].content + '\n\n' }}{%- endif -%}"
        "{{ '# Tools\n' }}{%- for tool in tools -%}{{ (tool | tojson) + '\n' }}{%- endfor -%}{{ '<|im_end|>\n' }}"
        "{%- elif messages[0].role == 'system' -%}"
        "{{ '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}{%- endif -%}"
        "{%- set last = namespace(user=0) -%}"
        "{%- for m in messages -%}{%- if m.role == 'user' -%}{%- set last.user = loop.index0 -%}{%- endif -%}"
        "{%- endfor -%}"
        "{%- for m in messages -%}"
        "{%- if m.role == 'user' or (m.role == 'system' and not loop.first) -%}"
        "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
        "{%- elif m.role == 'assistant' -%}"
        "{%- set thought = namespace(text='', said=m.content or '') -%}"
        "{%- if m.reasoning_content is string -%}{%- set thought.text = m.reasoning_content -%}"
        "{%- elif '</think>' in thought.said -%}"
        "{%- set thought.text = thought.said.split('</think>')[0].split('<think>')[-1].strip('\n') -%}"
        "{%- set thought.said = thought.said.split('</think>')[-1].lstrip('\n') -%}{%- endif -%}"
        "{{ '<|im_start|>assistant\n' }}"
        "{%- if loop.index0 > last.user and (loop.last or thought.text) -%}"
        "{{ '<think>\n' + thought.text.strip('\n') + '\n</think>\n\n' + thought.said.lstrip('\n') }}"
        "{%- else -%}{{ thought.said }}{%- endif -%}"
        "{%- for call in m.tool_calls or [] -%}{{ '\n<tool_call>\n' + (call.function | tojson) + '\n</tool_call>' }}"
        "{%- endfor -%}{{ '<|im_end|>\n' }}"
        "{%- elif m.role == 'tool' -%}"
        "{{ '<|im_start|>user\n<tool_response>\n' + m.content + '\n</tool_response><|im_end|>\n' }}"
        "{%- endif -%}{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}",
        (*_CHATML, "<think>", "</think>", "<tool_call>", "</tool_call>"),
        "<|im_end|>",
        "<|im_start|>assistant\n",
    ),
    "llama3": Family(
        "{{ '<|begin_of_text|>' }}"
        "{%- if tools -%}"
        "{{ '<|start_header_id|>system<|end_header_id|>\n\nTools: ' + (tools | tojson) + '<|eot_id|>' }}{%- endif -%}"
        "{%- for m in messages -%}"
        "{%- if m.tool_calls -%}"
        "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' + (m.tool_calls[0].function | tojson) + '<|eot_id|>' }}"
        "{%- elif m.role in ('tool', 'ipython') -%}"
        "{{ '<|start_header_id|>ipython<|end_header_id|>\n\n' + (m.content | tojson) + '<|eot_id|>' }}"
        "{%- else -%}"
        "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim + '<|eot_id|>' }}"
        "{%- endif -%}{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif -%}",
        ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        "<|eot_id|>",
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    "gemma": Family(
        "{{ bos_token }}"
        "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        "{% for m in messages %}{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' + "
        "m.content | trim + '<end_of_turn>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}",
        ("<start_of_turn>", "<end_of_turn>"),
        "<end_of_turn>",
        "<start_of_turn>model\n",
        system=False,
    ),
    "phi3": Family(
        "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}",
        ("<|user|>", "<|assistant|>", "<|system|>"),
        "<|end|>\n<|endoftext|>",
        "<|assistant|>\n",
    ),
    "mistral": Family(
        "{{ bos_token }}{% set start = 1 if messages[0].role == 'system' else 0 %}"
        "{% for m in messages[start:] %}"
        "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate') }}{% endif %}"
        "{% if m.role == 'user' %}{{ '[INST]' + (' ' + messages[0].content + '\n\n' if start and loop.last else ' ') + "
        "m.content + '[/INST]' }}"
        "{% else %}{{ ' ' + m.content + '</s>' }}{% endif %}{% endfor %}",
        ("[INST]", "[/INST]", "</s>"),
        "</s>",
        "[/INST]",
        system=False,
    ),
    "deepseek": Family(
        "{{ bos_token }}{% for m in messages %}"
        "{% if m.role == 'system' %}{{ m.content }}"
        "{% elif m.role == 'user' %}{{ '<|User|>' + m.content }}"
        "{% else %}{{ '<|Assistant|>' + m.content.split('</think>')[-1] + '<|end_of_sentence|>' }}"
        "{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|Assistant|><think>\n' }}{% endif %}",
        ("<|User|>", "<|Assistant|>", "<|end_of_sentence|>", "<think>", "</think>"),
        "<|end_of_sentence|>",
        "<|Assistant|>",
    ),
    "zephyr": Family(
        "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + eos_token + '\n' }}"
        "{% if loop.last and add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}{% endfor %}",
        (),
        "<|endoftext|>",
        "<|assistant|>",
    ),
}
